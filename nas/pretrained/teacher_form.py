"""How a given teacher takes images and gives its answer, where that is not as networks of this run do."""

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import nn

from nas.data.normalization import Normalization
from nas.errors import InputError

_SURE = 1e-6  # probabilities are cut off here: logits of at most 13.8


class ChannelOrder(StrEnum):
    """The order of an image's colours."""

    RGB = "rgb"
    BGR = "bgr"


class OutputForm(StrEnum):
    """What a network's output holds."""

    LOGITS = "logits"  # a channel for each class
    ONE_LOGIT = "one_logit"  # one channel: the logit of the second of two classes
    SIGMOID = "sigmoid"  # one channel: the probability of the second of two classes


@dataclass(frozen=True)
class TeacherForm:
    """Images and outputs of a network that somebody else trained.

    Attributes:
        mean: What images, scaled to 0 .. 1, were reduced by, in the order of the network's channels, e.g.
            `[0.485, 0.456, 0.406]`; empty for a network that was trained with the images of this run, or an ONNX file
            that takes 0 .. 1.
        std: What they were divided by then.
        channel_order: Of the images that the network takes.
        output: What it gives.

    Raises:
        ValueError: If `mean` and `std` do not fit each other.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channel_order: ChannelOrder = ChannelOrder.RGB
    output: OutputForm = OutputForm.LOGITS

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"std must have a value for each of mean's {len(self.mean)}, got {len(self.std)}")
        if any(value <= 0 for value in self.std):
            raise ValueError(f"std must be positive, got {list(self.std)}")


AS_NETWORKS_HERE = TeacherForm()


class FormedTeacher(nn.Module):
    """A given network as one of this run: from images, normalised as the run's are, to a logit for each class.

    Args:
        network: In eval mode.
        form: Its own.
        given: How images of the run are normalised.
        in_channels: Of them.
        n_classes: Of the data.
        source: The file, for messages.

    Raises:
        InputError: If the form does not fit images or classes.
    """

    _mean: torch.Tensor
    _std: torch.Tensor
    _given_mean: torch.Tensor
    _given_std: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        form: TeacherForm,
        given: Normalization,
        *,
        in_channels: int,
        n_classes: int,
        source: object,
    ) -> None:
        super().__init__()
        if form.mean and len(form.mean) != in_channels:
            raise InputError(
                f"teacher.mean must have a value for each channel: the images have {in_channels}, got {len(form.mean)}"
            )
        if form.channel_order is ChannelOrder.BGR and in_channels != 3:
            raise InputError(f"teacher.channel_order: bgr is of images with 3 channels, these have {in_channels}")
        if form.output is not OutputForm.LOGITS and n_classes != 2:
            raise InputError(f"teacher.output: {form.output} tells two classes apart, the data has {n_classes}")
        self.network = network
        self._form = form
        self._source = source
        own = {"_mean": form.mean, "_std": form.std, "_given_mean": given.mean, "_given_std": given.std}
        for name, values in own.items():
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map `(B, in_channels, H, W)` to logits.

        Raises:
            InputError: If the network's output has another form than was told.
        """
        if self._form.mean:
            images = images * self._given_std + self._given_mean
        if self._form.channel_order is ChannelOrder.BGR:
            images = images.flip(1)
        if self._form.mean:
            images = (images - self._mean) / self._std
        output: torch.Tensor = self.network(images)
        return output if self._form.output is OutputForm.LOGITS else self._two_logits(output)

    def _two_logits(self, output: torch.Tensor) -> torch.Tensor:
        """Return logits of both classes, the first one's 0: a softmax over them gives what a sigmoid would."""
        if output.dim() < 2 or output.shape[1] != 1:
            raise InputError(
                f"{self._source}: teacher.output: {self._form.output} needs one channel, the network gives "
                f"{' x '.join(map(str, output.shape[1:]))}"
            )
        if self._form.output is OutputForm.SIGMOID:
            if not torch.compiler.is_exporting() and not ((output >= 0) & (output <= 1)).all():
                low, high = float(output.min()), float(output.max())
                raise InputError(
                    f"{self._source}: teacher.output: sigmoid must lie between 0 and 1, the network gives {low:.3g} .. "
                    f"{high:.3g}; if these are logits, write output: one_logit"
                )
            output = torch.logit(output.float(), _SURE)
        return torch.cat([torch.zeros_like(output), output], dim=1)
