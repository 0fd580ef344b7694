"""Zero-cost proxies: what an untrained network tells of the score that it will reach. One or two passes each.

Each costs tens of milliseconds and more, so that they suit a shortlist, never every genotype that a controller thinks
of. They work on a copy, in train mode where normalisation by the batch matters: the network is left as it was.
"""

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from latency.counting.complexity import count_model
from nas.training.layout import RightGradients

_EPSILON = 1e-6


def zero_cost_proxies(model: nn.Module, images: Tensor, labels: Tensor, *, seed: int = 0) -> Mapping[str, float]:
    """Return all proxies by name, for use as a group of a predictor's features.

    Args:
        model: An untrained classifier, not modified.
        images: `(B, C, H, W)`, a batch of training images, or random numbers.
        labels: `(B,)`, the classes of `images`.
        seed: Of the random signs that trainability sends back through the network.

    Returns:
        `synflow`, `naswot`, `gradient_norm`, `expressivity`, `progressivity`, `trainability` and `n_macs`. More is
        better.
    """
    expressivity, progressivity, trainability = az_nas(model, primary_blocks(model), images, seed=seed)
    return {
        "synflow": synflow(model, images),
        "naswot": naswot(model, images),
        "gradient_norm": gradient_norm(model, images, labels),
        "expressivity": expressivity,
        "progressivity": progressivity,
        "trainability": trainability,
        "n_macs": float(count_model(copy.deepcopy(model).eval(), tuple(images.shape[1:])).n_macs),
    }


def synflow(model: nn.Module, images: Tensor) -> float:
    """Return the logarithm of how much all weights together let through: the sum of weight times gradient.

    Args:
        model: Not modified.
        images: Only their shape counts.

    Source:
        Tanaka et al. 2020, arXiv:2006.05467; as a proxy Abdelfattah et al. 2021, arXiv:2101.08134.
        Differs: the logarithm, since values span tens of orders of magnitude.
    """
    model = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    with _without_normalization(model):
        ones = torch.ones(1, *images.shape[1:], dtype=torch.float64, device=images.device)
        parameters = list(model.parameters())
        with RightGradients():
            gradients = torch.autograd.grad(model(ones).sum(), parameters, allow_unused=True)
    flow = sum(float((p.detach() * g).sum()) for p, g in zip(parameters, gradients, strict=True) if g is not None)
    return float(torch.tensor(flow, dtype=torch.float64).clamp(min=1e-300).log())


def naswot(model: nn.Module, images: Tensor) -> float:
    """Return how well the pattern of active ReLUs tells images apart: the log determinant of their agreements.

    Args:
        model: Not modified; a network without ReLUs scores the least.
        images: `(B, C, H, W)`.

    Source:
        Mellor et al. 2021, arXiv:2006.04647.
        Differs: a little is added to the diagonal, so that equal patterns have a finite score.
    """
    model = copy.deepcopy(model).train()
    n_images = len(images)
    agreements = torch.zeros(n_images, n_images, dtype=torch.float64, device=images.device)

    def count(module: nn.Module, read: tuple[Tensor, ...], written: Tensor) -> None:
        active = (written > 0).flatten(1).double()
        agreements.add_(active @ active.T + (1 - active) @ (1 - active).T)

    for module in model.modules():
        if isinstance(module, nn.ReLU | nn.ReLU6):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(images)
    agreements += _EPSILON * torch.eye(n_images, dtype=torch.float64, device=images.device)
    return float(torch.linalg.slogdet(agreements).logabsdet)


def gradient_norm(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the sum over parameters' tensors of the norm of the cross entropy's gradient.

    Source:
        Abdelfattah et al. 2021, arXiv:2101.08134.
    """
    model = copy.deepcopy(model).train()
    loss = functional.cross_entropy(model(images), labels)
    with RightGradients():
        gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return sum(float(gradient.norm()) for gradient in gradients if gradient is not None)


def az_nas(model: nn.Module, blocks: Sequence[str], images: Tensor, *, seed: int = 0) -> tuple[float, float, float]:
    """Return expressivity, progressivity and trainability; AZ-NAS's fourth, complexity, is `n_macs`.

    Expressivity is the entropy of the principal components of what each block gives, summed over blocks;
    progressivity the least that it grows by from a block to the next; trainability how close to 1 the largest singular
    value of each block's backward pass is.

    Args:
        model: Not modified.
        blocks: Names of modules that run one after the other, at least two; each gives `(B, C, H, W)`.
        images: `(B, C, H, W)`.
        seed: Of the random signs that are sent back.

    Raises:
        ValueError: If there are fewer than two blocks.

    Source:
        Lee & Ham 2024, arXiv:2403.19232, and its published code.
    """
    if len(blocks) < 2:
        raise ValueError(f"blocks must name at least two modules, got {len(blocks)}")
    model = copy.deepcopy(model).train()
    features: list[Tensor] = []

    def keep(module: nn.Module, read: tuple[Tensor, ...], written: Tensor) -> Tensor:
        features.append(written)
        return written.clone()  # the next block may work in place

    for name in blocks:
        model.get_submodule(name).register_forward_hook(keep)
    model(images)
    entropies = [_component_entropy(feature.detach()) for feature in features]
    generator = torch.Generator(device=images.device).manual_seed(seed)
    trainabilities = [_trainability(read, written, generator) for read, written in itertools.pairwise(features)]
    grows = [later - earlier for earlier, later in itertools.pairwise(entropies)]
    return sum(entropies), min(grows), sum(trainabilities) / len(trainabilities)


def primary_blocks(model: nn.Module) -> list[str]:
    """Return the names of the modules of the longest sequence in `model`: its stages, as a rule."""
    sequences = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Sequential | nn.ModuleList)
    }
    if not sequences:
        return []
    longest = max(sequences, key=lambda name: len(sequences[name]))
    return [f"{longest}.{child}" if longest else child for child, _ in sequences[longest].named_children()]


def _component_entropy(features: Tensor) -> float:
    """Return the entropy of the shares of variance of the principal components of `features`, `(B, C, H, W)`."""
    rows = features.double().permute(0, 2, 3, 1).reshape(-1, features.shape[1])
    rows = rows - rows.mean(dim=0)
    variances = torch.linalg.eigvalsh(rows.T @ rows / len(rows)).clamp(min=0)
    shares = variances / variances.sum().clamp(min=1e-300)
    return float(-(shares * shares.clamp(min=1e-300).log()).sum())


def _trainability(read: Tensor, written: Tensor, generator: torch.Generator) -> float:
    """Return 2 - s - 1 / s for the largest singular value s of how signs sent back correlate with what arrives."""
    signs = torch.randint(0, 2, written.shape, generator=generator, device=written.device).to(written.dtype) * 2 - 1
    back = None
    if written.requires_grad and read.requires_grad:
        (back,) = torch.autograd.grad(written, read, signs, retain_graph=True, allow_unused=True)
    if back is None:  # a block that passes nothing on
        back = torch.zeros_like(read)
    if back.shape[2:] != written.shape[2:]:
        back = functional.pixel_unshuffle(back, back.shape[2] // written.shape[2])
    sent, arrived = (tensor.permute(0, 2, 3, 1).reshape(-1, tensor.shape[1]).double() for tensor in (signs, back))
    largest = float(torch.linalg.matrix_norm(arrived.T @ sent / len(sent), ord=2))
    return 2 - largest - 1 / (largest + _EPSILON)


@contextmanager
def _without_normalization(model: nn.Module) -> Iterator[None]:
    """Let normalisation layers pass on what they read."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm | nn.GroupNorm)]
    handles = [layer.register_forward_hook(lambda module, read, written: read[0]) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
