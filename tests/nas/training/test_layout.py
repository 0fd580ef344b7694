import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils.checkpoint import checkpoint

from nas.data.base import Examples
from nas.data.normalization import Normalization
from nas.predictors.proxies import gradient_norm, synflow
from nas.tasks import Classification
from nas.training.batches import ImageData
from nas.training.engine import train
from nas.training.layout import GradientGuard, RightGradients, lay_out
from nas.values.recipes import TrainingRecipe

pytestmark = pytest.mark.trains

ROOT = Path(__file__).parents[3]
N_STEPS = 10


class Function(nn.Module):
    """A strided 1x1 convolution that no module tells of, of a weight in another shape."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 4))

    def forward(self, x):
        return functional.conv2d(x, self.weight[:, :, None, None], stride=2)


class Permuted(nn.Module):
    """A network that brings channels to the end itself, as ConvNeXt's blocks do."""

    def __init__(self):
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(4), nn.Conv2d(4, 8, 1, 2)

    def forward(self, x):
        return self.layer(self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


class Recomputed(nn.Module):
    """A layer that runs again in the backward pass."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(4, 8, 1, 2)

    def forward(self, x):
        return checkpoint(self.layer, x, use_reentrant=False)


PLANTED = {
    "module": lambda: nn.Conv2d(4, 8, 1, 2),
    "function": Function,
    "permuted": Permuted,
    "recomputed": Recomputed,
    "stride of one side": lambda: nn.Conv2d(4, 8, 1, (2, 1), bias=False),
    "one channel": lambda: nn.Sequential(nn.Conv2d(4, 1, 3, padding=1), nn.Conv2d(1, 8, 1, 2)),
    "twelve channels": lambda: nn.Sequential(nn.Conv2d(4, 12, 1), nn.Conv2d(12, 8, 1, 2)),
    "transposed": lambda: nn.Sequential(nn.Conv2d(4, 16, 1), nn.ConvTranspose2d(16, 4, 1, 2, output_padding=1)),
}  # fmt: skip


class InContiguousMemory(nn.Module):
    """A network that stays in contiguous memory, whatever layout it is put into."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def to(self, *arguments, memory_format=None, **options):
        return super().to(*arguments, **options)

    def forward(self, x):
        return self.network(x.clone(memory_format=torch.contiguous_format))


def planted(kind):
    """Return a network with a layer that oneDNN gets wrong under AVX2."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        return nn.Sequential(first, PLANTED[kind](), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(2))


def built(kind):
    network = planted(kind)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network(torch.zeros(2, 3, 64, 64))  # shapes the last layer
    return network


def data(n=4 * N_STEPS):
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(n) % 2
    images = torch.randint(0, 128, (n, 3, 64, 64), generator=generator) + 127 * targets[:, None, None, None]
    images = images.to(torch.uint8)
    return ImageData(Examples(images, targets), Normalization.of(images))


def trained(network):
    train(network, TrainingRecipe(epochs=1, batch_size=4), task=Classification(("dark", "bright")), data=data(), seed=0)
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])


@pytest.mark.parametrize("kind", PLANTED)
def test_ten_steps_lead_to_the_weights_of_contiguous_memory(kind):
    expected = trained(InContiguousMemory(built(kind)))
    found = trained(built(kind))
    assert float((found - expected).abs().max()) < 1e-4
    assert torch.equal(trained(built(kind)), found)


@pytest.mark.parametrize("kind", PLANTED)
def test_proxies_are_those_of_contiguous_memory(kind):
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(4) % 2
    contiguous, network = InContiguousMemory(built(kind)), lay_out(built(kind), "cpu")
    laid_out = images.contiguous(memory_format=torch.channels_last)
    assert gradient_norm(network, laid_out, labels) == pytest.approx(
        gradient_norm(contiguous, images, labels), rel=1e-4
    )
    assert synflow(network, laid_out) == pytest.approx(synflow(contiguous, images), rel=1e-4)


def test_a_processor_with_avx2_alone_trains_to_the_weights_of_contiguous_memory():
    """The tests above, in a process in which oneDNN uses no more: without the guard it crashes, hangs or errs."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        __file__,
        "-k",
        "of_contiguous_memory and not avx2",
    ]
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{2 * len(PLANTED)} passed" in done.stdout


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Conv2d(4, 6, 1, 2), (2, 4, 8, 8)),
        (lambda: nn.Conv2d(4, 6, 1, (3, 1), bias=False), (2, 4, 9, 7)),
        (lambda: nn.Conv2d(12, 6, 1, 2, groups=3), (2, 12, 7, 8)),
        (lambda: nn.ConvTranspose2d(6, 4, 1, 2, output_padding=1), (2, 6, 5, 4)),
        (lambda: nn.ConvTranspose2d(6, 4, 1, (1, 3), groups=2), (2, 6, 5, 4)),
        (lambda: nn.Conv1d(4, 6, 1, 2), (2, 4, 8)),
        (lambda: nn.Conv3d(1, 6, 1, (2, 3, 1)), (2, 1, 4, 5, 6)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("reads_gradient", [True, False])
def test_gradients_of_unsafe_convolutions_are_torchs_own(make, shape, reads_gradient):
    layer = make().double()  # oneDNN has no double precision: torch's own kernels answer
    read = torch.randn(shape, dtype=torch.float64, requires_grad=reads_gradient)
    output = layer(read)
    asked = [*layer.parameters(), *([read] if reads_gradient else [])]
    numbers = torch.randn_like(output)
    expected = torch.autograd.grad(output, asked, numbers, retain_graph=True)
    with RightGradients() as mode:
        found = torch.autograd.grad(output, asked, numbers)
    assert mode.n_unsafe == 1
    for right, ours in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 8, 1),
        nn.Conv2d(16, 4, 1, 2),
        nn.Conv2d(4, 8, 3, 2),
        nn.Conv2d(4, 8, 1, 2, padding=1),
        nn.ConvTranspose2d(4, 16, 1, 2),
        nn.Conv2d(4, 8, 1, 2).to("meta"),  # not on a CPU
        nn.Conv2d(4, 8, 1, 2).requires_grad_(False),
    ],
    ids=str,
)
def test_other_convolutions_are_left_to_torch(layer):
    read = torch.randn(2, layer.in_channels, 8, 8, device=layer.weight.device, requires_grad=True)
    with RightGradients() as mode:
        layer(read).sum().backward()
    assert mode.n_unsafe == 0


class Seldom(nn.Module):
    """Rests in the first pass."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.has_rested = layer, False

    def forward(self, x):
        rests, self.has_rested = not self.has_rested, True
        return x.sum() if rests else self.layer(x)


class OwnWeight(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 4, 1, 1))

    def forward(self, x):
        return functional.conv2d(x, self.weight, stride=2)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (nn.Conv2d(4, 8, 3, 2), [True, False, False]),
        (nn.Conv2d(4, 8, 1, 2), [True, True, True]),
        (Function(), [True, True, True]),
        (Seldom(nn.Conv2d(4, 8, 1)), [True, False, False]),
        (Seldom(nn.Conv2d(4, 8, 1, 2)), [True, True, True]),
        (Seldom(OwnWeight()), [True, True, True]),
        (nn.Conv2d(4, 8, 1, 2).to("meta"), [False, False, False]),
    ],
    ids=["safe", "unsafe", "function", "seldom safe", "seldom unsafe", "seldom function", "not on a CPU"],
)
def test_after_the_first_pass_only_networks_with_unsafe_convolutions_are_guarded(network, expected):
    guard = GradientGuard(network.modules())
    device = next(network.parameters()).device
    guarded = []
    for _ in range(3):
        read = torch.randn(2, 4, 8, 8, device=device, requires_grad=True)
        read.register_hook(lambda gradient: guarded.append(_get_current_dispatch_mode() is not None))
        loss = network(read).sum()
        with guard.backward_pass():
            loss.backward()
    assert guarded == expected
