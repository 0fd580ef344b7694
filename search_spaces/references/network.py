"""What reference networks say of themselves."""

from typing import ClassVar

from torch import nn


class ReferenceNetwork(nn.Module):
    """A fixed network, made of `in_channels`, `n_classes`, a `seed` and options of its own.

    Attributes:
        is_dense: Whether logits are for each pixel, or for each image: says which tasks the network serves.
    """

    is_dense: ClassVar[bool]
