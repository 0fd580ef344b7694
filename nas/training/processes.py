"""Several processes, one for each GPU or share of the CPUs, that train one network together."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from nas.errors import InputError, MachineError
from nas.faults import GO_ON
from nas.training.batches import Batch, TrainingData

T = TypeVar("T")

_PATIENCE = timedelta(days=7)  # the first process may train a teacher or score a large test split meanwhile
_LEAST_SHARE = 2  # images of a batch in each process: batch normalisation has no variance of one


@dataclass(frozen=True)
class Processes:
    """The processes of one training, as each of them sees it; by default it is alone.

    All hold the same weights. Each computes the gradients of its share of a batch, and all take a step along their
    mean. The first one decides and writes; the others do as it says.

    Attributes:
        rank: This one's number, from 0.
        count: How many there are.
        local_rank: This one's number on its machine.
        local_count: How many there are on this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that decides and writes."""
        return self.rank == 0

    def told(self, value: T) -> T:
        """Return what the first process gives, in each of them; what the others give is ignored.

        Raises:
            MachineError: If another process has ended.
        """
        if self.count == 1:
            return value
        box: list[T] = [value]
        with _blaming_lost_process():
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    @torch.no_grad()
    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Set each of `tensors`, of one floating type and on one device, to its mean over the processes.

        Raises:
            MachineError: If another process has ended.
        """
        if self.count == 1 or not tensors:
            return
        joined = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _blaming_lost_process():
            dist.all_reduce(joined)
        joined /= self.count
        for tensor, mean in zip(tensors, torch.split(joined, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def device(self, device: str) -> str:
        """Return the torch device that this process trains on where a run's is `device`: of CUDA one of its own.

        Raises:
            InputError: If there are fewer GPUs than processes on this machine.
        """
        if self.count == 1 or not device.startswith("cuda"):
            return device
        n_here = torch.cuda.device_count()
        if self.local_count > n_here:
            raise InputError(
                f"each process needs a GPU of its own: {self.local_count} were started on a machine with {n_here}; "
                f"give torchrun --nproc-per-node {n_here}"
            )
        return f"cuda:{self.local_rank}"

    def check_batch_size(self, batch_size: int) -> None:
        """Check that a batch can be shared out.

        Raises:
            InputError: If it cannot.
        """
        if self.count > 1 and (batch_size % self.count or batch_size // self.count < _LEAST_SHARE):
            raise InputError(
                f"training.batch_size {batch_size} cannot be shared out to {self.count} processes: it must be a "
                f"multiple of their number, with {_LEAST_SHARE} images for each at least; start fewer, or give "
                "--set training.batch_size=N"
            )


ALONE = Processes()


class SharedData(TrainingData):
    """The share of each batch that one process trains on.

    Order and seeds are drawn alike in all processes; variation and dropout are each one's own.

    Args:
        data: Of which the batches are.
        processes: Who shares them.
    """

    def __init__(self, data: TrainingData, processes: Processes) -> None:
        self.device, self.image_size = data.device, data.image_size
        self.has_teacher, self.n_resident_bytes = data.has_teacher, data.n_resident_bytes
        self._data, self._processes = data, processes

    def __len__(self) -> int:
        return len(self._data)

    def batch(self, rows: torch.Tensor, epoch: int, generator: torch.Generator) -> Batch:
        """Return this process's share of the examples at `rows`."""
        return self._data.batch(self._share(rows), epoch, self._own(generator))

    def batches(self, order: torch.Tensor, epoch: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yield this process's share of the batches of an epoch; torch's own generators are seeded on the way."""
        own = self._own(generator)
        torch.manual_seed(own.initial_seed())
        return self._data.batches(self._share(order), epoch, own)

    def _share(self, rows: torch.Tensor) -> torch.Tensor:
        return rows[..., self._processes.rank :: self._processes.count]

    def _own(self, generator: torch.Generator) -> torch.Generator:
        common = int(torch.randint(2**62, (), generator=generator))
        return torch.Generator().manual_seed(common + self._processes.rank)


def is_follower() -> bool:
    """Return whether torch's launcher started this process, and it is not the first."""
    return os.environ.get("RANK", "0") != "0" and dist.is_available() and dist.is_torchelastic_launched()


@contextlib.contextmanager
def joined_processes() -> Iterator[Processes]:
    """Join the processes that torch's launcher started (`torchrun -m nas retrain ...`); without it there is one.

    Raises:
        MachineError: If the others cannot be reached.
    """
    if not dist.is_available() or not dist.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        yield ALONE
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    with _blaming_lost_process():
        dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        yield Processes(*(int(os.environ[name]) for name in names))
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _blaming_lost_process() -> Iterator[None]:
    """Turn what torch raises where another process cannot be reached into our error."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise MachineError(
            f"another process of this training has ended; its own message says why ({reason}). Then {GO_ON}"
        ) from error
