import inspect
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from latency.counting.complexity import count_model
from latency.graph.onnx_writer import write_onnx, write_onnx_to_measure
from search_spaces import REFERENCE_MODELS, ReferenceModel, ResNet, UNet
from search_spaces.references.deeplab import DeepLabV3MobileNetV3
from search_spaces.references.enet import ENet, UpBottleneck


def n_params(model):
    return sum(parameter.numel() for parameter in model.parameters())


def conv_bn(i, o, k):
    return i * o * k * k + 2 * o


def unet_params(in_channels, n_classes, w):
    widths = [in_channels, w, 2 * w, 4 * w, 8 * w, 16 * w]
    down = sum(conv_bn(a, b, 3) + conv_bn(b, b, 3) for a, b in pairwise(widths))
    up = sum(2 * v * v * 9 + v + conv_bn(2 * v, v, 3) + conv_bn(v, v, 3) for v in (8 * w, 4 * w, 2 * w, w))
    return down + up + w * n_classes + n_classes


@pytest.mark.parametrize(("in_channels", "n_classes", "width"), [(3, 8, 16), (1, 2, 4)])
def test_unet_parameters_follow_the_formula(in_channels, n_classes, width):
    assert n_params(UNet(in_channels, n_classes, width=width)) == unet_params(in_channels, n_classes, width)


def test_unet_default_has_about_2_2_million_parameters():
    assert n_params(UNet(3, 8)) == 2_160_296


# Paszke et al. 2016, table 3: 0.37 M parameters; 0.36 M on the paper's project page.
def test_enet_has_the_published_0_36_million_parameters():
    assert n_params(ENet(3, 12)) == 359_851


# torchvision publishes 11,029,328 with its auxiliary head: 3x3 and 1x1 convolutions, 40 -> 10 -> 21.
def test_deeplabv3_mobilenetv3_has_the_published_parameters():
    auxiliary = conv_bn(40, 10, 3) + 10 * 21 + 21
    assert n_params(DeepLabV3MobileNetV3(3, 21)) + auxiliary == 11_029_328


def test_deeplabv3_works_at_stride_16():
    with torch.no_grad():
        assert DeepLabV3MobileNetV3(3, 2, width=4).eval().backbone(torch.randn(1, 3, 64, 96)).shape[-2:] == (4, 6)


def test_enet_unpools_to_where_the_maxima_were():
    up = UpBottleneck(8, 4).eval()
    before, x = torch.randn(2, 4, 7, 6), torch.randn(2, 8, 4, 3)
    _, indices = F.max_pool2d(before, 2, ceil_mode=True, return_indices=True)
    with torch.no_grad():
        beside = up.beside(x).flatten(2)
        unpooled = torch.zeros(2, 4, 42).scatter(2, indices.flatten(2), beside).view(2, 4, 7, 6)
        expected = up.activation(unpooled + F.interpolate(up.layers(x), (7, 6), mode="bilinear"))
        torch.testing.assert_close(up(x, before), expected)


@pytest.mark.parametrize("kind", ["unet", "enet", "deeplabv3_mobilenetv3"])
@pytest.mark.parametrize("size", [(32, 48), (37, 50), (17, 16)])
def test_segmentation_models_keep_any_size(kind, size):
    assert REFERENCE_MODELS[kind](1, 3, width=4)(torch.randn(2, 1, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize("kind", ["unet", "enet", "deeplabv3_mobilenetv3"])
def test_segmentation_models_are_counted_without_remainder(kind):
    counts = count_model(REFERENCE_MODELS[kind](3, 8).eval(), (3, 64, 64))
    assert counts.n_macs > 0
    assert not counts.uncounted


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["enet", "deeplabv3_mobilenetv3"])
def test_segmentation_models_export(kind, tmp_path):
    model = REFERENCE_MODELS[kind](3, 8, width=4).eval()
    assert write_onnx(model, (3, 32, 32), tmp_path / "model.onnx").max_difference <= 1e-4


@pytest.mark.parametrize("kind", REFERENCE_MODELS)
@pytest.mark.parametrize("size", [(32, 48), (37, 50)])
def test_every_operator_has_a_translation_to_onnx(kind, size, tmp_path):
    model = REFERENCE_MODELS[kind](3, 8, width=4).eval()
    assert write_onnx_to_measure(model, (3, *size), tmp_path / "model.onnx").untranslated == ""


# He et al. 2016, table 6: 0.27 M, 0.46 M, 0.66 M, 0.85 M with option-A shortcuts; option B adds the
# 1x1 convolutions 16 -> 32 and 32 -> 64 with their normalisations: 2,752.
@pytest.mark.parametrize(("depth", "option_a"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)])
def test_resnet_parameters_are_the_published_ones_and_its_shortcuts(depth, option_a):
    assert n_params(ResNet(3, 10, depth=depth)) == option_a + 2_752


def test_resnet_takes_grey_images_of_28_pixels():
    assert ResNet(1, 10, depth=8, width=4)(torch.randn(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UNet(3, 2, width=0), "width\n  Input should be greater than or equal to 1 .*input_value=0"),
        (
            lambda: DeepLabV3MobileNetV3(3, 2, width=0),
            "width\n  Input should be greater than or equal to 1 .*input_value=0",
        ),
        (lambda: ENet(3, 2, width=6), "width must be a multiple of 4 above the 3 channels of images, got 6"),
        (lambda: ENet(4, 2, width=4), "width must be a multiple of 4 above the 4 channels of images, got 4"),
        (lambda: ResNet(3, 2, width=0), "width\n  Input should be greater than or equal to 1 .*input_value=0"),
        (lambda: ResNet(3, 2, depth=18), "depth must be 6 n \\+ 2 with n of at least 1, got 18"),
        (lambda: ResNet(3, 2, depth=2), "depth must be 6 n \\+ 2 with n of at least 1, got 2"),
    ],
)
def test_options_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", REFERENCE_MODELS)
def test_weights_depend_on_the_seed_only(kind):
    before = torch.random.get_rng_state()
    models = [REFERENCE_MODELS[kind](3, 2, seed=seed, width=4) for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    states = [torch.cat([p.flatten() for p in model.parameters()]) for model in models]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("kind", REFERENCE_MODELS)
def test_all_options_have_defaults_and_a_step_trains_every_weight(kind):
    parameters = list(inspect.signature(REFERENCE_MODELS[kind]).parameters.values())
    assert [p.name for p in parameters[:3]] == ["in_channels", "n_classes", "seed"]
    assert all(p.default is not p.empty for p in parameters[2:])
    model = REFERENCE_MODELS[kind](1, 3, width=4)
    logits = model(torch.randn(2, 1, 32, 32))
    F.cross_entropy(logits, torch.zeros(logits.shape[:1] + logits.shape[2:], dtype=torch.long)).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("kind", REFERENCE_MODELS)
def test_a_reference_is_a_space_of_one_genotype(kind):
    space = ReferenceModel(kind)
    (genotype,) = space.enumerate()
    assert space.name == genotype.space == f"reference:{kind}"
    assert space.describe(genotype) == kind
    built = space.build(genotype, in_channels=1, n_classes=3, seed=4)
    expected = REFERENCE_MODELS[kind](1, 3, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(built.parameters(), expected.parameters(), strict=True))
