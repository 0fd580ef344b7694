"""Every translation computes what torch does, for batches other than the traced one."""

import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from latency.errors import UntranslatedOperatorError
from latency.graph.to_onnx.nodes import TRACED_BATCH
from latency.graph.to_onnx.table import TRANSLATIONS
from latency.graph.to_onnx.translation import onnx_from_graph
from latency.graph.tracer import graph_from_torch
from tests.latency.functions import Function

aten = torch.ops.aten
INDEX = torch.tensor([2, 0, 1])
MASK = (torch.arange(16) % 3 == 0).view(1, 1, 4, 4)


class WithWeights(nn.Module):
    """A function of an image and some parameters, which stand for whatever a layer of its own kind holds."""

    def __init__(self, function, *shapes):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weights = nn.ParameterList(torch.rand(shape, generator=generator) + 0.5 for shape in shapes)
        self.function = function

    def forward(self, x):
        return self.function(x, *self.weights)


class Buffers(nn.Module):
    """A function of an image and tensors that are no floating-point weights."""

    def __init__(self, function, **buffers):
        super().__init__()
        self.function = function
        for name, values in buffers.items():
            self.register_buffer(name, values)

    def forward(self, x):
        return self.function(x, *self.buffers())


IMAGE = (4, 4, 4)  # C, H, W
ELEMENTWISE = {
    "abs": torch.abs,
    "alias": lambda x: aten.alias(x) + 1,
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "clamp_max": lambda x: aten.clamp_max(x, 0.3),
    "clamp_min": lambda x: aten.clamp_min(x, 0.3),
    "clone": lambda x: x.clone() * 2,
    "copy_": lambda x: torch.zeros_like(x).copy_(x[:, :1]) + x,
    "cos": torch.cos,
    "detach": lambda x: x.detach() * 2,
    "elu": F.elu,
    "erf": torch.erf,
    "exp": torch.exp,
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "hardtanh": F.relu6,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "log": lambda x: torch.log(x.abs() + 1),
    "mish": F.mish,
    "neg": torch.neg,
    "reciprocal": lambda x: torch.reciprocal(x + 9),
    "relu": F.relu,
    "relu_": lambda x: F.relu((x * 2), inplace=True),
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 1),
    "rsub": lambda x: 1 - x,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "sin": torch.sin,
    "softplus": F.softplus,
    "sqrt": lambda x: torch.sqrt(x.abs()),
    "tanh": torch.tanh,
    "_to_copy": lambda x: (x > 0).float() * x,
    "add with a factor": lambda x: torch.add(x, x.abs(), alpha=3),
    "sub": lambda x: x.abs() - x,
    "mul": lambda x: x * x,
    "div": lambda x: x / (x.abs() + 1),
    "pow": lambda x: x**2,
    "maximum": lambda x: torch.maximum(x, -x),
    "minimum": lambda x: torch.minimum(x, x.abs() - 1),
    "a number of another type": lambda x: x * 2 + 1.5,
    "addcmul": lambda x: torch.addcmul(x, x, x.abs(), value=2.0),
    "full_like": lambda x: torch.full_like(x, 2.0) + x,
    "new_full": lambda x: x.new_full((len(x), 1, 1, 4), 2.0) + x,
    "new_ones": lambda x: x.new_ones(len(x), 1, 1, 4) + x,
    "new_zeros": lambda x: torch.cat([x, x.new_zeros(len(x), 1, 4, 4)], 1),
    "full": lambda x: torch.full((len(x), 1, 4, 4), 3.0, device=x.device) + x,
    "ones": lambda x: torch.ones(len(x), 1, 4, 4, device=x.device) + x,
    "zeros": lambda x: torch.cat([x, torch.zeros(len(x), 1, 4, 4, device=x.device)], 1),
    "ones_like": lambda x: torch.ones_like(x) + x,
    "comparisons": lambda x: sum(
        compare(x, x.abs().mean()).float() * factor
        for factor, compare in enumerate((torch.gt, torch.ge, torch.lt, torch.le), 1)
    ),
    "eq and ne": lambda x: (x == x.amax()).float() + 2 * (x != x.amin()).float(),
    "where": lambda x: torch.where(x > 0, x, -2.0 * x),
    "masked_fill": lambda x: x.masked_fill(x > 0.5, -1.0),
}
SHAPES = {
    "cat": lambda x: torch.cat([x, 2 * x], dim=-1),
    "expand": lambda x: x[:, :1].expand(-1, 3, -1, -1),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "repeat": lambda x: x.repeat(1, 2, 1, 3),
    "repeat with a new dimension": lambda x: x.mean((2, 3)).repeat(2, 1, 1) * 1.0,
    "roll": lambda x: torch.roll(x, (1, -2), (2, 3)),
    "select": lambda x: x[:, 1] + x[:, -1],
    "slice": lambda x: x[:, 1:3, ::2, :-1],
    "split": lambda x: x.split(3, dim=1)[1] * x.chunk(4, dim=1)[0],
    "split_with_sizes": lambda x: x.split([1, 3], dim=1)[1],
    "squeeze": lambda x: x[:, :1].squeeze(1) * 1.0,
    "stack": lambda x: torch.stack([x, 2 * x], dim=2),
    "transpose": lambda x: x.transpose(-1, 1),
    "unbind": lambda x: x.unbind(1)[2] - x.unbind(1)[0],
    "unsqueeze": lambda x: x.unsqueeze(2) * 1.0,
    "_unsafe_view": lambda x: aten._unsafe_view(x, [len(x), 64]),
    "view": lambda x: x.reshape(len(x), -1),
    "the batch joined with channels": lambda x: x.reshape(len(x) * 2, 2, 4, 4).mean((1, 2, 3)),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2),
    "amax": lambda x: x.amax((2, 3)),
    "amin": lambda x: x.amin(1, keepdim=True),
    "mean": lambda x: x.mean((2, 3), keepdim=True),
    "mean of all but the batch": lambda x: x.flatten(1).mean(1),
    "sum": lambda x: x.sum(1),
    "norms": lambda x: F.normalize(x, dim=1) + x.norm(p=1, dim=1, keepdim=True),
}
LAYERS = {
    "convolution": nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
    "dilated": nn.Conv2d(4, 4, 3, padding="same", dilation=2, bias=False),
    "transposed": nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1),
    "batch norm": nn.BatchNorm2d(4),
    "batch norm without weights": nn.BatchNorm2d(4, affine=False),
    "group norm": nn.GroupNorm(2, 4),
    "layer norm": nn.LayerNorm((4, 4)),
    "layer norm without weights": nn.LayerNorm(4, elementwise_affine=False),
    "prelu": nn.PReLU(4),
    "linear": nn.Sequential(nn.Flatten(), nn.Linear(64, 5)),
    "linear of every pixel": nn.Linear(4, 5),
    "softmax": nn.Softmax(dim=1),
    "log softmax": nn.LogSoftmax(dim=1),
    "max pool": nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "average pool": nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "adaptive average pool": nn.AdaptiveAvgPool2d(2),
    "nearest": nn.Upsample(scale_factor=2),
    "bilinear": nn.Upsample((7, 9), mode="bilinear"),
    "bilinear by a factor": nn.Upsample(scale_factor=2, mode="bilinear"),
    "bilinear with corners": nn.Upsample((7, 9), mode="bilinear", align_corners=True),
    "bilinear to one row": nn.Upsample((1, 3), mode="bilinear"),
    "bicubic": nn.Upsample((8, 8), mode="bicubic"),
    "pad": nn.ConstantPad2d((1, 2, 0, 1), 0.5),
    "reflect": nn.ReflectionPad2d((1, 2, 0, 1)),
    "replicate": nn.ReplicationPad2d((1, 2, 0, 1)),
    "attention": Function(lambda x: F.scaled_dot_product_attention(x, 2 * x, x + 1)),
    "fused attention": Function(lambda x: aten._scaled_dot_product_flash_attention_for_cpu(x, 2 * x, x + 1)[0]),
    "masked attention": Buffers(lambda x, mask: F.scaled_dot_product_attention(x, x, x, attn_mask=mask), mask=MASK),
    "causal attention": Function(lambda x: F.scaled_dot_product_attention(x, 2 * x, x + 1, is_causal=True)),
    "causal fused attention": Function(
        lambda x: aten._scaled_dot_product_flash_attention_for_cpu(x, 2 * x, x + 1, 0.0, True)[0]
    ),
    "safe softmax": Function(lambda x: aten._safe_softmax(x, -1)),
    "bmm": Function(lambda x: torch.bmm(x[:, 0], x[:, 1])),
    "baddbmm": Function(lambda x: torch.baddbmm(x[:, 2], x[:, 0], x[:, 1])),
    "mm": WithWeights(lambda x, w: x.flatten(1) @ w, (64, 3)),
    "addmm with factors": WithWeights(
        lambda x, b, w: torch.addmm(b, x.flatten(1), w, beta=0.5, alpha=2.0), (3,), (64, 3)
    ),
    "index": Buffers(lambda x, index: x[:, :, index], index=INDEX),
    "index_select": Buffers(lambda x, index: x.index_select(1, index), index=INDEX),
    "a class token": WithWeights(lambda x, t: torch.cat([t.expand(len(x), -1, -1), x.flatten(2)], 1), (1, 2, 16)),
    "weights that are computed": WithWeights(lambda x, w: F.conv2d(x, w / w.norm()), (3, 4, 1, 1)),
}
CASES = {name: Function(function) for name, function in (ELEMENTWISE | SHAPES).items()} | LAYERS


def traced(model, shape=IMAGE):
    return graph_from_torch(model, shape, batch_size=TRACED_BATCH)


def translated(model, shape=IMAGE):
    return onnx_from_graph(traced(model, shape), model)


@pytest.mark.parametrize("name", CASES)
def test_it_computes_what_torch_does_for_any_batch(name):
    model = CASES[name].eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.arange(4.0))
            module.running_var.copy_(torch.arange(1.0, 5.0))
    program = translated(model)
    onnx.checker.check_model(program, full_check=True)
    session = onnxruntime.InferenceSession(program.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        images = torch.randn(batch, *IMAGE, generator=torch.Generator().manual_seed(batch))
        with torch.inference_mode():
            expected = model(images)
        (actual,) = session.run(["logits"], {"image": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(actual), expected, rtol=1e-4, atol=1e-5)
        assert expected.abs().max() > 0.1


def test_every_translation_is_tested():
    met = {operator.name for model in CASES.values() for operator in traced(model.eval()).operators}
    met |= {name.removesuffix("_") for name in met}
    assert TRANSLATIONS.keys() - met == set()


def test_what_depends_on_no_image_is_stored_as_one_tensor():
    program = translated(CASES["weights that are computed"])
    assert [node.op_type for node in program.graph.node] == ["Conv"]


def test_unused_weights_are_left_out():
    program = translated(WithWeights(lambda x, used, unused: x * used, (4, 1, 1), (7,)).eval())
    assert [(tensor.name, tensor.dims) for tensor in program.graph.initializer] == [("weights.0", [4, 1, 1])]


def overwritten_view(x):
    y = x * 2
    y[:, 0] += 1
    return y


class Noisy(nn.Module):
    def forward(self, x):
        return x + torch.rand(4)


class OutsideConstant(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = torch.ones(4)

    def forward(self, x):
        return x * self.factor


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Function(lambda x: x.cumsum(1)), "aten.cumsum has no translation"),
        (Function(overwritten_view), "overwritten through another view"),
        (Function(lambda x: x), "an output that no operator computes from the input"),
        (Function(lambda x: F.max_pool2d(x, 2, return_indices=True)[1]), "an output that no operator computes"),
        (Noisy(), r"aten.rand draws random numbers"),
        (OutsideConstant(), "aten.mul reads a tensor that is no parameter"),
        (nn.AdaptiveAvgPool2d(3), "_adaptive_avg_pool2d with windows of several sizes has no translation"),
    ],
    ids=["operator", "memory", "nothing", "second result", "random", "constant", "use"],
)
def test_what_it_cannot_translate_is_refused(model, message):
    with pytest.raises(UntranslatedOperatorError, match=message):
        translated(model.eval())
