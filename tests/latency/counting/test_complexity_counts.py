import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from latency.counting.complexity import count, count_model
from latency.errors import UncountedOperatorError
from latency.graph.operator_graph import Operator, OperatorGraph, TensorInfo
from latency.graph.tracer import graph_from_torch
from tests.latency.functions import Function


def conv_bn(n_in, n_out, kernel_size=3, stride=1, groups=1):
    padding = kernel_size // 2
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel_size, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(n_out),
    )


class InvertedResidual(nn.Module):
    def __init__(self, n_in, n_out, stride, expansion):
        super().__init__()
        width = n_in * expansion
        layers = [] if expansion == 1 else [conv_bn(n_in, width, 1), nn.ReLU6()]
        layers += [conv_bn(width, width, 3, stride, groups=width), nn.ReLU6(), conv_bn(width, n_out, 1)]
        self.layers = nn.Sequential(*layers)
        self.is_residual = stride == 1 and n_in == n_out

    def forward(self, x):
        return x + self.layers(x) if self.is_residual else self.layers(x)


def mobilenet_v2():
    layers, n_in = [conv_bn(3, 32, 3, 2), nn.ReLU6()], 32
    for expansion, n_out, n_blocks, stride in [
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]:  # fmt: skip
        for block in range(n_blocks):
            layers.append(InvertedResidual(n_in, n_out, stride if block == 0 else 1, expansion))
            n_in = n_out
    layers += [conv_bn(320, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(1280, 1000)).eval()


class Residual(nn.Module):
    def __init__(self, layers, shortcut):
        super().__init__()
        self.layers, self.shortcut = layers, shortcut

    def forward(self, x):
        return F.relu(self.layers(x) + self.shortcut(x), inplace=True)


def resnet(n_blocks, *, is_bottleneck):
    layers, n_in = [conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 64
    for stage, repeats in enumerate(n_blocks):
        width = 64 * 2**stage
        n_out = 4 * width if is_bottleneck else width
        for block in range(repeats):
            stride = 2 if stage > 0 and block == 0 else 1
            if is_bottleneck:
                parts = [conv_bn(n_in, width, 1), nn.ReLU(), conv_bn(width, width, 3, stride), nn.ReLU()]
                parts += [conv_bn(width, n_out, 1)]
            else:
                parts = [conv_bn(n_in, width, 3, stride), nn.ReLU(), conv_bn(width, n_out)]
            is_identity = stride == 1 and n_in == n_out
            shortcut = nn.Identity() if is_identity else conv_bn(n_in, n_out, 1, stride)
            layers.append(Residual(nn.Sequential(*parts), shortcut))
            n_in = n_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, 1000)).eval()


# torchvision's model tables: parameters, and multiply-adds (its "GFLOPS") rounded to 10 million.
@pytest.mark.parametrize(
    ("build", "n_params", "n_macs"),
    [
        (mobilenet_v2, 3_504_872, 300_774_272),
        (lambda: resnet((2, 2, 2, 2), is_bottleneck=False), 11_689_512, 1_814_073_344),
        (lambda: resnet((3, 4, 6, 3), is_bottleneck=True), 25_557_032, 4_089_184_256),
    ],
    ids=["MobileNetV2", "ResNet-18", "ResNet-50"],
)
def test_published_networks(build, n_params, n_macs):
    with torch.device("meta"):
        model = build()
    complexity = count_model(model, (3, 224, 224)).require_complete()
    assert (complexity.n_params, complexity.n_macs) == (n_params, n_macs)


class TinyUNet(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU())
        self.bottom = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.head = nn.Conv2d(2 * width, 5, 1)

    def forward(self, image):
        skip = self.down(image)
        return self.head(torch.cat([skip, self.up(self.bottom(skip))], dim=1))


def test_u_net_closed_form():
    w, size = 8, 16
    complexity = count_model(TinyUNet(w).eval(), (3, size, size)).require_complete()
    down, bottom = 27 * w * size**2, 9 * w * 2 * w * (size // 2) ** 2
    up, head = 4 * 2 * w * w * (size // 2) ** 2, 2 * w * 5 * size**2
    assert complexity.macs_by_module == {"down.0": down, "bottom.1": bottom, "up": up, "head": head}
    assert complexity.n_macs == down + bottom + up + head
    assert complexity.macs_by_operator == {"aten.convolution": complexity.n_macs}
    parameters = {"down.0": 28 * w, "bottom.1": 18 * w * w + 2 * w, "up": 8 * w * w + w, "head": 10 * w + 5}
    assert complexity.params_by_module == parameters
    assert complexity.n_params == sum(parameters.values())


@pytest.mark.parametrize(
    ("layer", "input_shape", "n_macs"),
    [
        (nn.Conv2d(8, 12, (3, 5), stride=(2, 1), dilation=2, groups=4), (8, 11, 13), 4 * 5 * 12 * 2 * 15),
        (nn.Conv1d(4, 6, 3), (4, 10), 8 * 6 * 4 * 3),
        (nn.Conv3d(2, 3, 2), (2, 4, 4, 4), 27 * 3 * 2 * 8),
        (nn.ConvTranspose2d(8, 12, 3, stride=2, groups=4), (8, 5, 6), 5 * 6 * 8 * 3 * 9),
        (nn.Linear(7, 9), (7,), 63),
        (nn.Linear(7, 9, bias=False), (5, 7), 5 * 63),
        (Function(lambda x: x @ x.transpose(-1, -2)), (4, 5, 6), 4 * 5 * 5 * 6),
        (Function(lambda x: torch.einsum("bij,bkj->bik", x, x)), (5, 6), 5 * 5 * 6),
    ],
    ids=["grouped", "1d", "3d", "transposed", "linear", "linear_3d", "matmul", "einsum"],
)
def test_formulas_against_closed_forms_and_torchs_counter(layer, input_shape, n_macs):
    complexity = count_model(layer.eval(), input_shape).require_complete()
    assert complexity.n_macs == n_macs
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer(torch.zeros(1, *input_shape))
    assert counter.get_total_flops() == 2 * n_macs


def test_attention_is_its_two_matrix_products():
    def attend(x):
        return F.scaled_dot_product_attention(x[..., :6], x[..., 6:12], x[..., 12:])

    model, n_macs = Function(attend).eval(), 2 * 5 * 5 * (6 + 8)
    assert count_model(model, (2, 5, 20)).require_complete().n_macs == n_macs
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 2, 5, 20))
    assert counter.get_total_flops() == 2 * n_macs


@pytest.mark.parametrize("name", ["flash_attention_for_cpu", "flash_attention", "efficient_attention"])
def test_fused_attention_counts_as_its_matrix_products(name):
    tensors = [TensorInfo((1, 2, length, width), torch.float32, 0) for length, width in [(5, 6), (7, 6), (7, 8)]]
    operator = Operator(f"aten._scaled_dot_product_{name}", (0, 1, 2), (3,), "", {})
    output = TensorInfo((1, 2, 5, 8), torch.float32, 0)
    graph = OperatorGraph((operator,), (*tensors, output), (), (0,), (3,), {}, {}, 1)
    assert count(graph).require_complete().n_macs == 2 * 5 * 7 * (6 + 8)


@pytest.mark.parametrize(
    ("function", "n_macs"),
    [
        (lambda x: F.adaptive_avg_pool2d(x.contiguous(memory_format=torch.channels_last), 1), 0),
        (lambda x: F.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), 1), 0),
        (lambda x: x.as_strided((1, 4, 8), (256, 64, 1)).cumsum(1), 0),
        (lambda x: torch.roll(x.unflatten(2, (4, 2)), (1, 1), (2, 3)).logcumsumexp(1), 0),
        (lambda x: torch.vdot(x.flatten(), x.flatten()), 256),
        (lambda x: torch.addmm(x[0, 0], x[0, 1], x[0, 2]).addmm_(x[0, 1], x[0, 3]), 2 * 8**3),
    ],
    ids=["channels_last pooling", "permuted pooling", "cumsum of a strided view", "roll", "vdot", "in place"],
)
def test_what_networks_of_others_use_is_counted_whole(function, n_macs):
    assert count_model(Function(function).eval(), (4, 8, 8)).require_complete().n_macs == n_macs


def test_grouped_products_of_mixtures_of_experts():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, 16, 32))

        def forward(self, tokens):
            ends = torch.tensor([3, 5], dtype=torch.int32)
            return torch.ops.aten._grouped_mm(tokens[0], self.weight, ends)

    assert count_model(Experts().eval(), (5, 16)).require_complete().n_macs == 5 * 16 * 32


def test_matrix_times_vector():
    vector = torch.ones(6)
    model = Function(lambda x: (x[0] @ vector).dot(x[0, :, 0])).eval()
    assert count_model(model, (4, 6)).n_macs == 4 * 6 + 4


def test_what_the_convention_leaves_out_counts_nothing():
    model = nn.Sequential(
        nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(8), nn.ReLU6(), nn.Hardswish(), nn.SiLU(),
        nn.GELU(), nn.PReLU(4), nn.Sigmoid(), nn.Softmax(1), nn.Dropout(), nn.MaxPool2d(3, 1, 1),
        nn.AvgPool2d(3, 1, 1), nn.AdaptiveAvgPool2d(4), nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Upsample(scale_factor=2), nn.PixelShuffle(2), nn.ReflectionPad2d(1), nn.ChannelShuffle(1),
        Function(lambda x: torch.cat(x.chunk(2, dim=2), dim=1) * 2 + 1 - x.mean()), nn.Flatten(),
    )  # fmt: skip
    complexity = count_model(model.eval(), (4, 8, 8))
    assert (complexity.n_macs, complexity.uncounted) == (0, ())


def test_an_operator_without_a_formula_is_named_and_refused():
    model = nn.Sequential(nn.Linear(4, 8), Function(lambda x: torch.special.i1(torch.fft.rfft(x).abs()))).eval()
    complexity = count_model(model, (4,))
    assert complexity.n_macs == 32
    assert complexity.uncounted == ("aten._fft_r2c", "aten.special_i1")
    with pytest.raises(UncountedOperatorError, match=r"no formula for aten._fft_r2c, aten.special_i1") as caught:
        complexity.require_complete()
    assert caught.value.operators == ("aten._fft_r2c", "aten.special_i1")


def test_shared_and_unused_parameters():
    layer = nn.Linear(4, 4, bias=False)
    model = nn.Sequential(layer, layer)
    model.register_module("unused", nn.Linear(2, 3))
    model.forward = lambda x: layer(layer(x))
    complexity = count_model(model.eval(), (4,))
    assert (complexity.n_params, complexity.n_macs) == (16 + 9, 32)
    assert complexity.params_by_module == {"0": 16, "unused": 9}


def test_counts_are_those_of_one_sample():
    graph = graph_from_torch(nn.Linear(4, 4).eval(), (4,), batch_size=3)
    with pytest.raises(ValueError, match=r"graph must be traced with a batch of 1, got 3"):
        count(graph)
