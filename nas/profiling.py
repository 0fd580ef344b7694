"""What `nas profile` shows: one network's costs by module, its latency on devices, its memory over the operators."""

import contextlib
import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from latency.complexity import Complexity, count
from latency.devices import DEVICES
from latency.devices.base import Device
from latency.devices.onnx_device import OnnxDevice
from latency.errors import DeviceUnavailableError, LatencyError, TracingError
from latency.graph import OperatorGraph
from latency.inference import torch_threads
from latency.memory.breakdown import MemoryBreakdown, memory_breakdown
from latency.memory.estimate import MemoryEstimate, estimate_peak_memory
from latency.onnx_reader import graph_from_onnx, onnx_input_shape
from latency.profile import ModuleCosts, module_costs, module_times_s
from latency.stats import LatencyStats
from nas import build
from nas.analysis.run import Run
from nas.config import RunConfig, load_config
from nas.config.kinds import find_object, kind_class
from nas.config.options import construct, nearest, options_model, validate
from nas.data.base import Dataset
from nas.errors import InputError
from nas.store import RunFolder
from nas.training_layout import RightGradients
from search_spaces.base import ModelSpace, SearchSpace
from search_spaces.errors import GenotypeError
from search_spaces.genotype import Genotype


@dataclass(frozen=True)
class Target:
    """A network to profile.

    Attributes:
        title: What it is, in words.
        network: The model in eval mode, or an ONNX file.
        input_shape: `(C, H, W)`, without the batch.
        batch_size: For bytes, shares of time and devices that do not say their own.
        devices: Those of its configuration, by name.
    """

    title: str
    network: nn.Module | Path
    input_shape: tuple[int, ...]
    batch_size: int = 1
    devices: Mapping[str, Device] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """What was found out about a network. Counts are of one sample, bytes and shapes of the batch.

    Attributes:
        target: The network.
        n_params: All parameters.
        complexity: The counts; `None` if the network cannot be traced.
        modules: A row for each module; empty if it cannot be traced.
        memory: Activations over the operators; `None` if it cannot be traced.
        latencies: By the device's name.
        breakdowns: Where a process's memory goes, in an `inference` and in a `training step`; empty if nobody asked.
        problems: What could not be found out and why, in sentences.
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
    target: Target, devices: Mapping[str, Device], *, depth: int | None = None, breakdown_device: str | None = None
) -> Profile:
    """Count, time and measure a network; what fails is a problem of the profile, the rest is still there.

    Args:
        target: The network.
        devices: Where to take its latency, by name.
        depth: Fold modules deeper than this.
        breakdown_device: The torch device whose memory to break down, such as `"cpu"`; `None` for no breakdown.

    Raises:
        InputError: If a device is not here, or the network fails on its input wherever it was tried.
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
        graph, sample = _graph(target, target.batch_size), _graph(target, 1)
    except TracingError as error:
        problems.append(f"Not counted: {error}")
    except ValueError as error:
        if not isinstance(target.network, Path):
            raise InputError(str(error)) from error
        problems.append(f"Not counted: {error}")  # a file for a fixed batch still runs with that one
    else:
        complexity, memory = count(sample), estimate_peak_memory(graph)
        modules = module_costs(graph, complexity, module_times_s=_times(target, problems), depth=depth)
        if complexity.is_partial:
            names = ", ".join(complexity.uncounted)
            problems.append(f"The counts are partial: no formula for {names}")
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
        overrides: Changes of the configuration.
        trust_code: Whether Python code that it names may be imported.

    Raises:
        InputError: If the configuration is faulty, has no data to tell the input, or the space no such genotype.
    """
    settings = load_config(config, overrides, trust_code)
    if settings.data is None:
        raise InputError(f"{config}: without data nothing tells the size of a network's input")
    data: Dataset = kind_class("data", settings.data.kind)(**settings.data.options)
    space = build.search_space(settings)
    if not isinstance(space, ModelSpace):
        raise InputError(f"{config}: search_space {space.name!r} builds no networks")
    chosen = space.canonical(_genotype(space, genotype))
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
        subject = build.stored_subject(settings, folder, record.candidate)
    assert subject.signature is not None  # noqa: S101 - stored_subject gives one
    title = f"{record.id}: {record.candidate.description}"
    return Target(title, subject.model.eval(), subject.signature.input_shape, devices=_config_devices(settings))


def onnx_target(path: Path, sizes: Sequence[int] | None) -> Target:
    """Return an ONNX file; `sizes` with the batch, needed where the file leaves its own open.

    Raises:
        InputError: If it cannot be read or a size is missing.
    """
    try:
        shape = tuple(sizes[1:]) if sizes else onnx_input_shape(path)
    except TracingError as error:
        raise InputError(str(error)) from error
    if not shape:
        raise InputError(f"{path} leaves sizes of its input open: give them with --input, e.g. --input 1,3,224,224")
    return Target(str(path), path, shape, sizes[0] if sizes else 1)


def model_target(name: str, sizes: Sequence[int] | None, trust_code: bool = False) -> Target:
    """Return the torch model that `package.module:factory` makes when it is called.

    Raises:
        InputError: If the code is not trusted, cannot be imported, or makes no model.
    """
    if not sizes or len(sizes) < 2:
        raise InputError("--model needs the input's sizes with the batch, e.g. --input 1,3,224,224")
    factory, faults = find_object(name, ("--model",), trust_code)
    if faults:
        raise InputError("\n".join(fault.text for fault in faults))
    try:
        model = factory()
    except Exception as error:
        raise InputError(f"--model {name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"--model {name} must make a torch.nn.Module, got a {type(model).__name__}")
    return Target(name, model.eval(), tuple(sizes[1:]), sizes[0])


def devices_named(names: Sequence[str], target: Target) -> dict[str, Device]:
    """Return the devices to measure on: those of the configuration by name, or `kind:option=value,...`.

    Without names: all of the configuration, or this machine's CPU.

    Raises:
        InputError: If there is no such device or option.
    """
    if not names:
        kind = "onnxruntime" if isinstance(target.network, Path) else "torch_cpu"
        return dict(target.devices) or {kind: _device(kind, target)}
    return {name: target.devices[name] if name in target.devices else _device(name, target) for name in names}


def _graph(target: Target, batch_size: int) -> OperatorGraph:
    if isinstance(target.network, Path):
        return graph_from_onnx(target.network, target.input_shape, batch_size=batch_size)
    return OperatorGraph.from_torch(target.network, target.input_shape, batch_size=batch_size)


def _times(target: Target, problems: list[str]) -> dict[str, float] | None:
    """Return each module's time on this machine's CPU; a file's modules are not to be told apart when it runs."""
    if isinstance(target.network, Path):
        return None
    try:
        with torch_threads(1):
            return module_times_s(target.network, target.input_shape, batch_size=target.batch_size)
    except LatencyError as error:
        problems.append(f"No shares of time: {error}")
        return None


def _breakdowns(target: Target, device: str, problems: list[str]) -> dict[str, MemoryBreakdown]:
    """Return the parts of an inference and of a training step with Adam."""
    if isinstance(target.network, Path):
        raise InputError("--breakdown: an ONNX file runs outside torch, which alone tells its parts")
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


def _genotype(space: SearchSpace, text: str) -> Genotype:
    values = text.replace(" ", "").split(",")
    try:
        if all(value.lstrip("-").isdigit() for value in values):
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
    return {name: kind_class("devices", section.kind)(**section.options) for name, section in settings.devices.items()}


def _device(text: str, target: Target) -> Device:
    """Return the device of `kind:option=value,...`."""
    kind, _, rest = text.partition(":")
    if kind not in DEVICES:
        raise InputError(f"--device: unknown device {kind!r}.{nearest(kind, [*target.devices, *DEVICES])}")
    values: dict[str, Any] = {"batch_size": target.batch_size}
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        values[key.strip()] = yaml.safe_load(value)
    path = ("--device", kind)
    options, faults = validate(options_model(DEVICES[kind]), values, path)
    if options is not None:
        device, faults = construct(lambda: DEVICES[kind](**options), options, path)
        if device is not None:
            return device
    raise InputError("\n".join(fault.text for fault in faults))
