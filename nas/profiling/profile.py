"""The profile of one network: costs by module, latency on devices, memory over the operators."""

import contextlib
import copy
import dataclasses
import functools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from latency.checks import is_exported
from latency.counting.complexity import Complexity, count, count_sample
from latency.devices import DEVICES
from latency.devices.base import Device
from latency.devices.onnx_device import OnnxDevice
from latency.errors import DeviceUnavailableError, LatencyError, TracingError
from latency.graph.onnx_reader import graph_from_onnx, onnx_batch_size, onnx_input_shape
from latency.graph.operator_graph import OperatorGraph
from latency.graph.tracer import graph_from_torch
from latency.inference import torch_threads
from latency.memory.breakdown import MemoryBreakdown, memory_breakdown
from latency.memory.estimate import MemoryEstimate, estimate_peak_memory
from latency.profiling.profile import ModuleCosts, module_costs, module_times_s
from latency.timing.stats import LatencyStats
from nas import assembly
from nas.config import RunConfig, load_config
from nas.config.draft import Draft
from nas.config.faults import nearest
from nas.config.kinds import Component
from nas.config.yaml_source import read_value
from nas.errors import InputError
from nas.registry import find_object
from nas.store.run import Run
from nas.store.run_folder import RunFolder
from nas.training.layout import RightGradients
from nas.values.records import Record
from search_spaces.base import ModelSpace, SearchSpace
from search_spaces.errors import GenotypeError
from search_spaces.genotype import Genotype

_MAX_GENOTYPE_LENGTH = 10_000


@dataclass(frozen=True)
class Target:
    """A network to profile.

    Attributes:
        title: A description for people.
        network: The model in eval mode, or an ONNX file.
        input_shape: `(C, H, W)`, without the batch.
        batch_size: For memory, shares of time, and devices that set no batch size of their own.
        devices: The devices of its configuration, by name.
    """

    title: str
    network: nn.Module | Path
    input_shape: tuple[int, ...]
    batch_size: int = 1
    devices: Mapping[str, Device] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """The measured and counted costs of a network. Counts are for one sample, bytes and shapes for the batch.

    Attributes:
        target: The network.
        n_params: All parameters.
        complexity: The counts; `None` if the network cannot be traced.
        modules: A row for each module; empty if it cannot be traced.
        memory: Activations over the operators; `None` if it cannot be traced.
        latencies: By the device's name.
        breakdowns: The parts of a process's memory, in `inference` and in a `training step`; empty if not asked for.
        problems: Sentences that say what could not be counted or measured, and why.
    """

    target: Target
    n_params: int | None
    complexity: Complexity | None
    modules: tuple[ModuleCosts, ...]
    memory: MemoryEstimate | None
    latencies: Mapping[str, LatencyStats]
    breakdowns: Mapping[str, MemoryBreakdown]
    problems: tuple[str, ...]


def profile(
    target: Target,
    devices: Mapping[str, Device],
    *,
    depth: int | None = None,
    timed: bool = True,
    breakdown_device: str | None = None,
) -> Profile:
    """Count, time and measure a network; a part that fails becomes one of the profile's problems.

    Args:
        target: The network.
        devices: The devices on which to measure latency, by name.
        depth: Fold modules deeper than this.
        timed: Whether to time the modules on this machine's CPU; without it and without devices nothing is run.
        breakdown_device: The torch device whose memory to break down, such as `"cpu"`; `None` for no breakdown.

    Raises:
        InputError: If a device is not available, or the network cannot run on its input at all.
    """
    for name, device in devices.items():
        try:
            device.check()
        except DeviceUnavailableError as error:
            raise InputError(f"device {name}: {error}") from error
    problems: list[str] = []
    complexity, memory = None, None
    modules: tuple[ModuleCosts, ...] = ()
    try:
        graph, complexity = _graph_and_counts(target)
    except TracingError as error:
        problems.append(f"Not counted: {error}")
    except ValueError as error:
        if not isinstance(target.network, Path):
            raise InputError(str(error)) from error
        problems.append(f"Not counted: {error}")
    else:
        memory = estimate_peak_memory(graph)
        modules = module_costs(
            graph, complexity, module_times_s=_times(target, problems) if timed else None, depth=depth
        )
        if complexity.is_partial:
            names = ", ".join(complexity.uncounted)
            problems.append(f"The counts are partial: no formula, or sizes that depend on data, for {names}")
    latencies = {}
    for name, device in devices.items():
        try:
            latencies[name] = _latency(target, device)
        except (LatencyError, ValueError) as error:
            problems.append(f"No latency on {name}: {error}")
    if complexity is None and devices and not latencies:
        raise InputError(f"{target.title} does not run on its input (--input). {problems[0]}")
    breakdowns = _breakdowns(target, breakdown_device, problems) if breakdown_device else {}
    return Profile(
        target, _n_params(target, complexity), complexity, modules, memory, latencies, breakdowns, tuple(problems)
    )


def config_target(config: Path, genotype: str, overrides: Sequence[str] = (), trust_code: bool = False) -> Target:
    """Return the network of a genotype of a configuration's search space; no data is decoded.

    Args:
        config: The YAML file.
        genotype: Gene values joined by commas, or the space's own text form.
        overrides: Overridden keys of the configuration.
        trust_code: Whether to import Python code that the configuration names.

    Raises:
        InputError: If the configuration is faulty or has no data, or the space has no such genotype.
    """
    settings = load_config(config, overrides, trust_code)
    if settings.data is None:
        raise InputError(f"{config}: the configuration has no data section, which sets the size of a network's input")
    data, space = settings.data.instance, settings.search_space.instance
    if not isinstance(space, ModelSpace):
        raise InputError(f"{config}: search_space {space.name!r} builds no networks")
    chosen = space.canonical(read_genotype(space, genotype))
    model = space.build(chosen, in_channels=data.in_channels, n_classes=len(data.class_names), seed=settings.seed)
    shape = (data.in_channels, *data.image_size)
    return Target(space.describe(chosen), model.eval(), shape, devices=_config_devices(settings))


def run_target(run_dir: Path, candidate: str, trust_code: bool = False) -> Target:
    """Return the network of a run's candidate, from the run's folder alone.

    Raises:
        InputError: If there is no such run or candidate, or the run builds no networks.
    """
    record = Run.load(run_dir).find(candidate)
    settings = load_config(run_dir / "config.yaml", trust_code=trust_code)
    with RunFolder.read(run_dir) as folder:
        return record_target(settings, folder, record)


def record_target(settings: RunConfig, folder: RunFolder, record: Record) -> Target:
    """Return the network of a record of an open run.

    Raises:
        InputError: If the run builds no networks.
    """
    subject = assembly.stored_subject(settings, folder, record.candidate)
    assert subject.signature is not None  # noqa: S101 - stored_subject gives one
    title = f"{record.id}: {record.candidate.description}"
    return Target(title, subject.model.eval(), subject.signature.input_shape, devices=_config_devices(settings))


def onnx_target(path: Path, sizes: Sequence[int] | None) -> Target:
    """Return the network of an ONNX file.

    Args:
        path: The file.
        sizes: The input's sizes with the batch; needed if the file has dynamic ones.

    Raises:
        InputError: If the file cannot be read, or a size is missing.
    """
    try:
        shape = tuple(sizes[1:]) if sizes else onnx_input_shape(path)
        batch_size = sizes[0] if sizes else onnx_batch_size(path) or 1
    except TracingError as error:
        raise InputError(str(error)) from error
    if shape is None:
        raise InputError(f"{path} has dynamic input sizes: give them with --input, e.g. --input 1,3,224,224")
    return Target(str(path), path, shape, batch_size)


def model_target(name: str, sizes: Sequence[int] | None, trust_code: bool = False) -> Target:
    """Return the torch model that the function `package.module:factory` returns.

    Raises:
        InputError: If the code is not trusted, cannot be imported, or returns no model.
    """
    if not sizes or len(sizes) < 2:
        raise InputError("--model needs the input's sizes with the batch, e.g. --input 1,3,224,224")
    try:
        factory = find_object(name, trust_code, "--model")
    except ValueError as error:
        raise InputError(str(error)) from error
    try:
        model = factory()
    except Exception as error:
        raise InputError(f"--model {name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"--model {name} must make a torch.nn.Module, got a {type(model).__name__}")
    return Target(name, model if is_exported(model) else model.eval(), tuple(sizes[1:]), sizes[0])


def devices_named(names: Sequence[str], target: Target) -> dict[str, Device]:
    """Return the devices of these names: a device of the configuration, or `kind:option=value,...`.

    Without names: all devices of the configuration, or this machine's CPU.

    Raises:
        InputError: If there is no such device or option.
    """
    if not names:
        kind = "onnxruntime" if isinstance(target.network, Path) else "torch_cpu"
        return dict(target.devices) or {kind: device_named(kind, batch_size=target.batch_size)}
    made = functools.partial(device_named, batch_size=target.batch_size, known=target.devices)
    return {name: target.devices[name] if name in target.devices else made(name) for name in names}


def _graph_and_counts(target: Target) -> tuple[OperatorGraph, Complexity]:
    """Return the operators of the batch and the counts of one sample."""
    network, shape = target.network, target.input_shape
    if isinstance(network, nn.Module):
        graph = graph_from_torch(network, shape, batch_size=target.batch_size)
        return graph, count(graph if graph.batch_size == 1 else graph_from_torch(network, shape))
    graph = graph_from_onnx(network, shape or None, batch_size=target.batch_size)
    if onnx_batch_size(network) is None:
        return graph, count(graph_from_onnx(network, shape or None, batch_size=1))
    return graph, count_sample(graph)


def _times(target: Target, problems: list[str]) -> dict[str, float] | None:
    """Return each module's time on this machine's CPU; `None` for an ONNX file, which runs as a whole."""
    if isinstance(target.network, Path):
        return None
    try:
        with torch_threads(1):
            return module_times_s(target.network, target.input_shape, batch_size=target.batch_size)
    except LatencyError as error:
        problems.append(f"No shares of time: {error}")
        return None


def _breakdowns(target: Target, device: str, problems: list[str]) -> dict[str, MemoryBreakdown]:
    """Return the memory breakdowns of an inference and of a training step with Adam."""
    if isinstance(target.network, Path):
        raise InputError("--breakdown: only torch models can be broken down, not an ONNX file")
    found: dict[str, MemoryBreakdown] = {}
    for name, optimizer in {"inference": None, "training step": torch.optim.Adam}.items():
        model = copy.deepcopy(target.network).train(optimizer is not None)
        try:
            with contextlib.nullcontext() if optimizer is None else RightGradients():
                found[name] = memory_breakdown(
                    model, target.input_shape, batch_size=target.batch_size, device=device, optimizer=optimizer
                )
        except DeviceUnavailableError as error:
            raise InputError(f"--breakdown: {error}") from error
        except (LatencyError, ValueError, RuntimeError) as error:
            problems.append(f"No memory breakdown of {name}: {error}")
    return found


def _latency(target: Target, device: Device) -> LatencyStats:
    if not isinstance(target.network, Path):
        return device.measure_latency(target.network, target.input_shape)
    if isinstance(device, OnnxDevice):
        return device.measure_file(target.network, target.input_shape)
    raise ValueError("an ONNX file runs on devices of kind onnxruntime only")


def _n_params(target: Target, complexity: Complexity | None) -> int | None:
    if complexity is not None:
        return complexity.n_params
    if isinstance(target.network, nn.Module):
        return sum(parameter.numel() for parameter in target.network.parameters())
    return None


def read_genotype(space: SearchSpace, text: str) -> Genotype:
    """Return the genotype that a text names: gene values joined by commas, or the space's own form.

    Raises:
        InputError: If it names none of this space.
    """
    if len(text) > _MAX_GENOTYPE_LENGTH:
        raise InputError(f"--genotype must have at most {_MAX_GENOTYPE_LENGTH:,} characters, got {len(text):,}")
    values = text.replace(" ", "").split(",")
    try:
        if all(re.fullmatch("-?[0-9]{1,18}", value) for value in values):
            return space.genotype([int(value) for value in values])
        if (from_string := getattr(space, "from_string", None)) is not None:
            genotype: Genotype = from_string(text)
            return genotype
    except GenotypeError as error:
        raise InputError(f"--genotype: {error}") from error
    raise InputError(
        f"--genotype must be {len(space.genes)} integers joined by commas for search space {space.name!r}, got {text!r}"
    )


def _config_devices(settings: RunConfig) -> dict[str, Device]:
    return {name: section.instance for name, section in settings.devices.items()}


def device_named(text: str, *, batch_size: int = 1, known: Collection[str] = ()) -> Device:
    """Return the device of `kind:option=value,...`.

    Args:
        text: Of the command line.
        batch_size: Unless the text gives one.
        known: Names that could be meant, beside the kinds.

    Raises:
        InputError: If there is no such kind or option.
    """
    kind, _, rest = text.partition(":")
    if kind not in DEVICES:
        raise InputError(f"--device: unknown device {kind!r}.{nearest(kind, [*known, *DEVICES])}")
    values: dict[str, Any] = {"batch_size": batch_size}
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        values[key.strip()] = read_value(f"--device {text}", value)
    draft = Draft({"devices": {kind: {"kind": kind, **values}}})
    devices: Mapping[str, Component[Device]] = draft.config.devices
    if kind not in devices:
        faults = (fault.text.removeprefix("devices.") for fault in draft.faults if fault.path[0] == "devices")
        raise InputError("\n".join(f"--device {text}" for text in faults))
    return devices[kind].instance
