"""Which convolutions give wrong gradients on this machine: a scan of their kinds, each in a process of its own.

`python -m nas.training.convolution_scan` scans as networks are trained here; `--unguarded` shows what torch does by
itself.
`ONEDNN_MAX_CPU_ISA=AVX2` in the environment scans as on a processor that has AVX2 and no more.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from enum import StrEnum
from multiprocessing.connection import Connection
from typing import Any, Literal

import torch
from torch import nn

from nas.training.layout import RightGradients

# Images, pixels of a side. What goes wrong depends on how much work there is, and on whether a stride divides the side.
_BATCHES = ((3, 15), (8, 32), (3, 96))
_MAX_RELATIVE_ERROR = {"float32": 1e-4, "bfloat16": 2e-2}
_INSTRUCTIONS = "ONEDNN_MAX_CPU_ISA"


class Verdict(StrEnum):
    """What became of the gradients of a kind of convolution."""

    RIGHT = "right"
    WRONG = "wrong"
    CRASH = "crash"
    HANG = "hang"


@dataclass(frozen=True)
class ConvolutionKind:
    """A convolution of images, and how many CPU threads compute it."""

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    transposed: bool = False
    n_threads: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"

    def build(self) -> nn.Module:
        """Return such a layer; a transposed one multiplies the size of an image by its stride."""
        channels = (self.in_channels, self.out_channels)
        options: dict[str, Any] = {"padding": self.padding, "dilation": self.dilation, "groups": self.groups}
        if not self.transposed:
            return nn.Conv2d(*channels, self.kernel_size, self.stride, **options)
        options["output_padding"] = tuple(step - 1 for step in self.stride)
        return nn.ConvTranspose2d(*channels, self.kernel_size, self.stride, **options)


@dataclass(frozen=True)
class Finding:
    """What the scan found of one kind.

    Attributes:
        kind: The convolution.
        verdict: Whether its gradients are right.
        relative_error: Largest difference of a gradient in channels_last memory from contiguous memory, over the
            largest number of that gradient; `None` where the process gave no gradients.
    """

    kind: ConvolutionKind
    verdict: Verdict
    relative_error: float | None


def scan(
    kinds: Sequence[ConvolutionKind] | None = None,
    *,
    guarded: bool = True,
    time_limit_s: float = 60.0,
) -> tuple[Finding, ...]:
    """Return what becomes of the gradients of each kind in the memory layout that networks are trained in.

    Args:
        kinds: Which convolutions to scan; `None` for `all_kinds()`, which takes about a minute.
        guarded: Compute gradients as trainings here do; `False` for torch's own.
        time_limit_s: For one kind; a process that takes longer hangs.
    """
    context = multiprocessing.get_context("forkserver")
    # This module is `__main__` when it is run; what takes its time to import is imported once, not by each process.
    context.set_forkserver_preload(["torch._dynamo", RightGradients.__module__])
    findings = []
    for kind in all_kinds() if kinds is None else kinds:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_send_error, args=(sender, kind, guarded))
        process.start()
        sender.close()
        process.join(time_limit_s)
        if process.is_alive():
            process.kill()
            process.join()
            findings.append(Finding(kind, Verdict.HANG, None))
        elif process.exitcode != 0:
            findings.append(Finding(kind, Verdict.CRASH, None))
        else:
            error = receiver.recv()
            is_right = error <= _MAX_RELATIVE_ERROR[kind.precision]
            findings.append(Finding(kind, Verdict.RIGHT if is_right else Verdict.WRONG, error))
        receiver.close()
        process.close()
    return tuple(findings)


def all_kinds() -> tuple[ConvolutionKind, ...]:
    """Return kinds over kernels, strides, dilations, groups, transposition, 1 to 24 channels, one and two threads."""
    return tuple(dict.fromkeys(itertools.chain(_by_channels(), _by_shape(), _grouped(), _in_half_precision())))


def few_kinds() -> tuple[ConvolutionKind, ...]:
    """Return kinds that are known to fail without the guard, and their neighbours: a scan of seconds."""
    channels = ((1, 8), (12, 4))
    return tuple(
        ConvolutionKind(
            *(pair[::-1] if transposed else pair), stride=stride, transposed=transposed, n_threads=n_threads
        )
        for pair in channels
        for stride, transposed in (((2, 2), False), ((2, 1), False), ((2, 2), True))
        for n_threads in (1, 2)
    )


def main() -> None:
    """Scan, print what fails, and exit with 1 if something does in trainings."""
    arguments = _arguments()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # or threads of short processes spin longer than they compute
    kinds = few_kinds() if arguments.few else all_kinds()
    found = {"as_trained": scan(kinds, time_limit_s=arguments.time_limit_s)}
    if arguments.unguarded:
        found["unguarded"] = scan(kinds, guarded=False, time_limit_s=arguments.time_limit_s)
    if arguments.json:
        print(json.dumps(_summary(found), indent=2))
    else:
        print("\n".join(_lines(found)))
    sys.exit(any(finding.verdict is not Verdict.RIGHT for finding in found["as_trained"]))


def _by_channels() -> Iterator[ConvolutionKind]:
    """Yield the commonest kinds for all numbers of channels, most of them for the one that fails on some machines."""
    for n_threads, transposed, kernel, stride in itertools.product((1, 2), (False, True), (1, 3), (1, 2)):
        for channels in range(1, 25):
            few: tuple[tuple[int, int], ...] = ((channels, 8), (8, channels)) if (kernel, stride) == (1, 2) else ()
            for pair in ((channels, 25 - channels), *few):
                yield _kind(*pair, (kernel, kernel), (stride, stride), transposed=transposed, n_threads=n_threads)


def _by_shape() -> Iterator[ConvolutionKind]:
    """Yield further kernels, strides, dilations and paddings for some numbers of channels."""
    kernels = ((2, 2), (5, 5), (1, 3))
    shapes = [(kernel, (stride, stride), (1, 1)) for kernel in kernels for stride in (1, 2)]
    shapes += [((kernel, kernel), stride, (1, 1)) for kernel in (1, 3) for stride in ((2, 1), (1, 2), (3, 3))]
    shapes += [((3, 3), (stride, stride), (2, 2)) for stride in (1, 2)]
    for channels, n_threads in itertools.product(((4, 12), (20, 9)), (1, 2)):
        for (kernel, stride, dilation), transposed in itertools.product(shapes, (False, True)):
            yield _kind(*channels, kernel, stride, dilation, transposed=transposed, n_threads=n_threads)
        yield ConvolutionKind(*channels, (1, 1), (2, 2), (1, 1), n_threads=n_threads)  # padded


def _grouped() -> Iterator[ConvolutionKind]:
    """Yield depthwise convolutions, and those of groups of few and of many channels."""
    for n_threads, kernel, stride in itertools.product((1, 2), (1, 3), (1, 2)):
        for channels, groups in ((4, 4), (7, 7), (24, 24), (6, 2), (12, 2), (24, 2), (24, 6)):
            sides = (channels, channels, (kernel, kernel), (stride, stride))
            yield _kind(*sides, groups=groups, n_threads=n_threads)


def _in_half_precision() -> Iterator[ConvolutionKind]:
    for n_threads, transposed, stride in itertools.product((1, 2), (False, True), (1, 2)):
        for channels in ((4, 8), (8, 16), (15, 4), (16, 16)):
            pair = channels[::-1] if transposed else channels
            options: dict[str, Any] = {"n_threads": n_threads, "transposed": transposed, "precision": "bfloat16"}
            yield _kind(*pair, (1, 1), (stride, stride), **options)


def _kind(
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
    **options: Any,
) -> ConvolutionKind:
    """Return a kind whose padding lets a convolution of stride 1 keep the size of images with odd kernels."""
    padding = tuple(step * (side - 1) // 2 for step, side in zip(dilation, kernel, strict=True))
    return ConvolutionKind(in_channels, out_channels, kernel, stride, (padding[0], padding[1]), dilation, **options)


def _send_error(sender: Connection, kind: ConvolutionKind, guarded: bool) -> None:
    """Run in a process of its own: send the relative error of the kind's gradients."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what the C library says of a broken heap
    torch.set_num_threads(kind.n_threads)
    sender.send(max(_relative_error(kind, *batch, guarded=guarded) for batch in _BATCHES))


def _relative_error(kind: ConvolutionKind, n_images: int, size: int, *, guarded: bool) -> float:
    """Return the largest error of the gradients of input, weight and bias; infinity if one is not finite."""
    torch.manual_seed(0)
    precision = getattr(torch, kind.precision)
    layer = kind.build().to(precision)
    images = torch.randn(n_images, kind.in_channels, size, size).to(precision)
    expected = _gradients(layer, images, channels_last=False)
    worst = 0.0
    for _ in range(2):  # memory that a first pass broke shows in the next
        with RightGradients() if guarded else nullcontext():
            found = _gradients(layer, images, channels_last=True)
        for right, ours in zip(expected, found, strict=True):
            error = float((right - ours).abs().max() / right.abs().max())
            worst = max(worst, error if ours.isfinite().all() else float("inf"))
    return worst


def _gradients(layer: nn.Module, images: torch.Tensor, *, channels_last: bool) -> tuple[torch.Tensor, ...]:
    """Return the gradients of images, weight and bias for an output gradient of random numbers."""
    parameters: dict[str, torch.Tensor] = dict(layer.named_parameters())
    parameters["weight"] = _laid_out(parameters["weight"].detach(), channels_last).requires_grad_()
    images = _laid_out(images, channels_last).requires_grad_()
    output = torch.func.functional_call(layer, parameters, (images,))
    numbers = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output.dtype)
    return torch.autograd.grad(output, [images, *parameters.values()], _laid_out(numbers, channels_last))


def _laid_out(tensor: torch.Tensor, channels_last: bool) -> torch.Tensor:
    """Return a copy whose strides are those of the layout even where a dimension has size 1."""
    if not channels_last:
        return tensor.clone(memory_format=torch.contiguous_format)
    return tensor.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m nas.training.convolution_scan", description=__doc__)
    parser.add_argument("--unguarded", action="store_true", help="also scan torch's own gradients")
    parser.add_argument("--few", action="store_true", help="only the kinds known to fail, and their neighbours")
    parser.add_argument("--time-limit-s", type=float, default=60.0, metavar="S", help="for one kind; default: 60")
    parser.add_argument("--json", action="store_true", help="print every finding as JSON")
    return parser.parse_args()


def _summary(found: dict[str, tuple[Finding, ...]]) -> dict[str, Any]:
    return {
        "torch": torch.__version__,
        "instructions": os.environ.get(_INSTRUCTIONS, "the processor's own"),
        **{name: [asdict(finding) for finding in findings] for name, findings in found.items()},
    }


def _lines(found: dict[str, tuple[Finding, ...]]) -> Iterator[str]:
    """Yield what failed, and how many did."""
    for name, findings in found.items():
        failed = [finding for finding in findings if finding.verdict is not Verdict.RIGHT]
        for finding in failed:
            error = "" if finding.relative_error is None else f", relative error {finding.relative_error:.2g}"
            yield f"{finding.verdict}{error}: {finding.kind}"
        yield f"{name.replace('_', ' ')}: {len(failed)} of {len(findings)} kinds of convolutions fail"


if __name__ == "__main__":
    main()
