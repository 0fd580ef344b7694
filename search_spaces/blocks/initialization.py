"""Initial weights from a seed, whatever the state of torch's global generator."""

import math

import torch
from torch import nn

from search_spaces.blocks.operations import LearnedUpsampling


def initialize(model: nn.Module, seed: int) -> None:
    """Draw all weights of `model` anew, in the order of its modules.

    A module's weights depend on the seed and on what stands before it only: candidates that share an
    encoder start from the same encoder. Convolutions without a bias are followed by batch normalisation
    and a rectifier: He-normal, by fan-out. Those with a bias, and linear layers, give logits or gates:
    LeCun-normal, by fan-in, so that logits start with the variance of the features. Biases start at 0,
    normalisation as the identity, learned slopes of rectifiers at 0.25, learned upsampling as interpolation.

    Raises:
        TypeError: If `model` holds parameters of a kind of module that has no rule here.

    Source:
        He et al. 2015, arXiv:1502.01852; LeCun et al. 1998, "Efficient BackProp".
        Differs: the fan-out of a grouped convolution counts one group's outputs.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, LearnedUpsampling | nn.BatchNorm2d | nn.PReLU):
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, std=_standard_deviation(module), generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif next(module.parameters(recurse=False), None) is not None:
            raise TypeError(f"no rule to initialise a {type(module).__name__}")


def _standard_deviation(module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> float:
    if isinstance(module, nn.Linear):
        return math.sqrt(1 / module.in_features)
    n_taps = math.prod(module.kernel_size)
    if isinstance(module, nn.ConvTranspose2d):
        n_taps //= math.prod(module.stride)  # an output pixel sees one tap in each stride
    if module.bias is None:
        return math.sqrt(2 * module.groups / (n_taps * module.out_channels))
    return math.sqrt(module.groups / (n_taps * module.in_channels))
