"""Small tensors that never change, made once for each device."""

import contextlib
import functools
import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from nas.errors import DamagedFileError, InputError
from nas.faults import blaming_machine, machine_error
from nas.files import atomic_path, require_regular

_TENSOR_CORES = (7, 0)  # the first compute capability with units for float16; bfloat16 came with 8.0


@functools.lru_cache(maxsize=256)
def constant(values: tuple[float, ...] | tuple[int, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return `(n,)` of `values` on `device`; not to be written to.

    Copied to a GPU in every step, they would make the host wait for it, and could not be part of a captured graph.
    """
    return torch.tensor(values, dtype=dtype, device=device)


@contextlib.contextmanager
def torch_threads(n_threads: int) -> Iterator[None]:
    """Let torch use `n_threads` CPU threads for one operator, and restore its setting afterwards.

    The count changes the order of floating-point sums, so a training's result depends on it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def as_current(device: torch.device) -> AbstractContextManager[object]:
    """Let CUDA's streams, graphs and pinned memory be of `device` in this thread; on a CPU this does nothing."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


_MAX_WEIGHTS_BYTES = 1 << 40
_N_SHOWN = 5  # of the weights that differ; there may be hundreds


_CHECKSUM = "sha256"  # key of a file's texts: of names, types, shapes and bytes of its weights


def save_weights(
    model: nn.Module, path: Path, metadata: Mapping[str, str] | None = None, *, with_checksum: bool = False
) -> None:
    """Write the weights and buffers of `model`, and texts by key, to `path`, a safetensors file, atomically.

    Args:
        model: The network.
        path: The file.
        metadata: Texts.
        with_checksum: Whether one is kept within the file, which reading it compares; a shared artifact has its own.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    texts = dict(metadata or {}) | ({_CHECKSUM: _checksum(state)} if with_checksum else {})
    with atomic_path(path) as temporary:
        save_file(state, temporary, texts or None)


def weights_metadata(path: Path) -> dict[str, str]:
    """Return the texts that were saved beside weights.

    Raises:
        DamagedFileError: If the file cannot be read.
    """
    with _reading(path), safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a safetensors file by name.

    Raises:
        FileNotFoundError: If there is none.
        DamagedFileError: If it cannot be read, or holds other weights than were written.
    """
    with _reading(path):
        require_regular(path, _MAX_WEIGHTS_BYTES)
        state: dict[str, torch.Tensor] = load_file(path)
    written = weights_metadata(path).get(_CHECKSUM)
    if written is not None and written != _checksum(state):
        raise DamagedFileError(f"{path} is damaged: it does not hold the weights that were written")
    return state


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever a safetensors file of any content makes its library raise into our error."""
    try:
        yield
    except (FileNotFoundError, InputError):
        raise
    except Exception as error:
        raise DamagedFileError(f"{path} cannot be read as safetensors: {error}") from error


def _checksum(state: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file into `model`.

    Raises:
        FileNotFoundError: If there is none.
        DamagedFileError: If it cannot be read, or holds other weights than were written.
        RuntimeError: If its names or shapes are not the model's, naming them.
    """
    state = read_weights(path)
    if differing := list(_differences(state, model.state_dict())):
        more = f"; and {len(differing) - _N_SHOWN} others" if len(differing) > _N_SHOWN else ""
        raise RuntimeError("; ".join(differing[:_N_SHOWN]) + more)
    model.load_state_dict(state)


def _differences(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> Iterator[str]:
    """Yield what differs between the names and shapes in a file and those of a model."""
    for name, tensor in expected.items():
        if name not in found:
            yield f"Missing key {name}"
        elif found[name].shape != tensor.shape:
            yield f"{name} has the shape {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
    yield from (f"{name} is not of this model" for name in found if name not in expected)


def load_part(module: nn.Module, path: Path) -> None:
    """Load into `module` its weights from an artifact that may hold others too.

    Raises:
        MachineError: If the file cannot be read, or is damaged.
        RuntimeError: If a weight is missing or has another shape, naming it.
    """
    try:
        with blaming_machine(f"{path} cannot be read"):
            state = read_weights(path)
    except DamagedFileError as error:  # whoever starts the command again has it made again
        raise machine_error(f"{path} cannot be read", error) from error
    module.load_state_dict({name: state[name] for name in module.state_dict().keys() & state.keys()})


def resolve_device(device: str) -> str:
    """Return the torch device that `training.device` means on this machine: `auto` takes CUDA if it can.

    Raises:
        InputError: If CUDA, or that CUDA device, is asked for and is not here.
    """
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if n_cuda else "cpu"
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= n_cuda:
        raise InputError(
            f"training.device {device!r} is not here: torch {torch.__version__} sees {n_cuda} CUDA devices; "
            "use auto or cpu"
        )
    return device


def resolve_precision(precision: str, device: str) -> torch.dtype:
    """Return what `training.precision` means for trainings on `device`, from `resolve_device`."""
    if precision == "auto":
        precision = _fastest_precision(device)
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def _fastest_precision(device: str) -> str:
    if not device.startswith("cuda"):
        return "float32"
    with torch.cuda.device(device):
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16"
        return "float16" if torch.cuda.get_device_capability() >= _TENSOR_CORES else "float32"


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    """Raise a `RuntimeError` in the block where the host would wait for a CUDA device."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode")  # that it does not find every wait
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
