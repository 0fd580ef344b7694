"""What a search consists of, made from the configuration: space, devices, stages, controller, executor."""

import functools
import platform
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from latency.devices.base import Device
from latency.errors import DeviceUnavailableError
from nas.assembly.training import (
    candidate_training,
    thresholds,
    training_setting,
)
from nas.config import ConstraintConfig, ObjectiveConfig, RunConfig
from nas.controllers import SearchProblem
from nas.errors import InputError
from nas.evaluation import (
    ComplexityStage,
    DeviceStage,
    Evaluator,
    FunctionStage,
    ModelSignature,
    SeededStage,
    Stage,
    TableStage,
)
from nas.evaluation.known_costs import CountedCosts, TableCosts, bounds_check
from nas.evaluation.stages import COMPLEXITY_METRICS
from nas.execution import Executor
from nas.pretrained.encoder import PretrainedSpace
from nas.registry import imported
from nas.search.listener import SearchListener
from nas.search.parts import SearchParts
from nas.search.warm_start import warm_start
from nas.store.run_folder import RunFolder, weights_path
from nas.tasks.base import Task
from nas.values.records import Candidate
from nas.version import VERSION
from search_spaces.base import ModelSpace, SearchSpace
from search_spaces.errors import SearchSpaceError
from search_spaces.references.reference_models import ReferenceModel
from search_spaces.spaces.tabular import Tabular

_MIN_WARM_START = 10  # genotypes that earlier runs give, where a batch is smaller


def prepare_folder(config: RunConfig, folder: RunFolder) -> None:
    """Store what a reader needs to show the run without its configuration's classes."""
    store = folder.store
    store.set_fact("name", config.name)
    store.set_fact("objectives", [asdict(objective) for objective in config.objective_values()])
    store.set_fact("constraints", [asdict(constraint) for constraint in config.constraint_values()])
    store.set_fact("scores", trained_metrics(config))
    packages = ("torch", "numpy", "pymoo", "moocore", "onnxruntime")
    own = {"pareto-nas": VERSION, "python": platform.python_version()}
    store.set_fact("versions", {**own, **{package: version(package) for package in packages}})


def search_parts(config: RunConfig, folder: RunFolder, listener: SearchListener | None = None) -> SearchParts:
    """Return everything that a search joins. Reads data and trains the teacher if nobody did before.

    Raises:
        InputError: If a device, the data, the teacher or the table is not available.
    """
    listener = listener or SearchListener()
    space, controller = config.search_space.instance, config.controller.instance
    try:
        space.check()
    except SearchSpaceError as error:
        raise InputError(f"search_space: {error}") from error
    runs_on = config.execution.instance
    runs_on.prepare()
    devices = checked_devices(config, runs_on)
    setting = training_setting(config, folder, listener)
    _check_training_device(config, setting.device if setting else "cpu")
    signature = ModelSignature.of(config.data.instance) if config.data else None
    costs, scores = _table_stages(config, space)
    measuring = (*measuring_stages(config, space, signature, devices), *costs)
    working: tuple[Stage, ...] = (*_function_stages(config), *scores)
    start, files, front_training = space, tuple[Path, ...](), None
    if setting and trained_metrics(config):
        start, training = candidate_training(config, space, setting, folder, listener)
        n_seeds = config.seeds_per_candidate
        working += (SeededStage(training, range(n_seeds)) if n_seeds > 1 else training,)
        if config.front_seeds:
            front_training = SeededStage(training.without_weights(), range(n_seeds, n_seeds + config.front_seeds))
        files = training.files
        files += (start.weights,) if isinstance(start, PretrainedSpace) else ()
    references = [ReferenceModel(kind) for kind in config.references]
    spaces: dict[str, SearchSpace] = {known.name: known for known in (start, *references)}
    required = frozenset(config.metric_keys)
    problem = search_problem(config, space, signature, runs_on)
    if runs := config.controller.warm_start:
        n_first = max(controller.batch_size, _MIN_WARM_START)
        problem = replace(problem, first=warm_start(folder, runs, space, problem.objectives, n_first))
    trained_on = functools.partial(
        Evaluator,
        spaces,
        signature=signature,
        device=setting.device if setting else "cpu",
        files=files,
        weights=functools.partial(weights_path, folder.path) if files else None,
    )
    return SearchParts(
        problem=problem,
        constraints=config.constraint_values(),
        controller=controller,
        measuring=Evaluator(spaces, measuring, signature, required, is_last=not working),
        working=trained_on(working, required=required),
        front_training=trained_on((front_training,), is_last=False) if front_training else None,
        executor=runs_on,
        given_reference_point={k: v for k, v in config.reference_point.items() if v is not None},
        chance_levels=chance_levels(config, setting.task if setting else None),
        references=tuple(Candidate.create(reference, reference.genotype(()), config.seed) for reference in references),
        thresholds=thresholds(config, setting, {metric for stage in measuring for metric in stage.provides}),
        budget=config.budget,
        scheduling=config.scheduling,
    )


def _check_training_device(config: RunConfig, device: str) -> None:
    """Check what depends on the device that `training.device: auto` stands for."""
    if config.budget.gpu_hours is not None and device == "cpu":
        raise InputError("budget.gpu_hours: no training of this run uses a GPU; give hours or n_trained")
    if trained_metrics(config):
        try:
            config.execution.instance.check_device(device)
        except ValueError as error:
            raise InputError(f"execution.{error}") from error


def chance_levels(config: RunConfig, task: Task | None) -> dict[str, float]:
    """Return by metric what an answer without knowledge reaches, where that is known."""
    of_functions = {name: metric.chance_level for name, metric in config.metrics.items()}
    of_task = {metric: task.chance_level(metric) for metric in task.metrics} if task else {}
    return {name: level for name, level in (of_functions | of_task).items() if level is not None}


def checked_devices(config: RunConfig, runs_on: Executor) -> dict[str, Device]:
    """Return the devices by the user's names.

    Raises:
        InputError: If one of them cannot be used.
    """
    devices = {name: section.instance for name, section in config.devices.items()}
    for name, device in devices.items():
        try:
            runs_on.at_device(DeviceStage.name_of(name), device.check)
            if config.metric_key("energy_mj", name) in config.metric_keys:
                runs_on.at_device(DeviceStage.name_of(name), device.check_energy)
        except DeviceUnavailableError as error:
            raise InputError(f"devices.{name}: {error}") from error
    return devices


def measuring_stages(
    config: RunConfig, space: SearchSpace, signature: ModelSignature | None, devices: Mapping[str, Device]
) -> tuple[Stage, ...]:
    """Return the stages that need no training: counts, then devices."""
    counting = (ComplexityStage(),) if isinstance(space, ModelSpace) and signature else ()
    return (*counting, *_device_stages(config, devices))


def _device_stages(config: RunConfig, devices: Mapping[str, Device]) -> list[Stage]:
    """Return a stage for each device that some objective or constraint asks."""
    wanted: dict[str, dict[str, str]] = {}
    sections: list[ObjectiveConfig | ConstraintConfig] = [*config.objectives, *config.constraints]
    for section in sections:
        if section.device is not None:
            key = config.metric_key(section.metric, section.device)
            wanted.setdefault(section.device, {})[section.metric] = key
    return [DeviceStage(name, devices[name], keys) for name, keys in wanted.items()]


def _table_stages(config: RunConfig, space: SearchSpace) -> tuple[list[Stage], list[Stage]]:
    """Return the stages that read a table's costs and its scores, those of them that some metric asks."""
    if not isinstance(space, Tabular):
        return [], []
    wanted = set(config.metric_keys) - config.metrics.keys()
    groups = (wanted & set(space.costs), wanted - set(space.costs))
    costs, scores = ([TableStage(space, columns)] if columns else [] for columns in groups)
    return list(costs), list(scores)


def _function_stages(config: RunConfig) -> list[Stage]:
    return [FunctionStage(name, imported(metric.function)) for name, metric in config.metrics.items()]


def trained_metrics(config: RunConfig) -> list[str]:
    """Return the objectives and constraints that need trained networks."""
    wanted = dict.fromkeys([o.metric for o in config.objectives] + [c.metric for c in config.constraints])
    return [name for name in wanted if (info := config.metric_info(name)) is not None and info.needs_training]


def search_problem(
    config: RunConfig, space: SearchSpace, signature: ModelSignature | None, runs_on: Executor
) -> SearchProblem:
    """Return the problem with what can be known before anything is measured: a table's costs, counts and bounds."""
    objectives, constraints = config.objective_values(), config.constraint_values()
    if isinstance(space, Tabular):
        known = TableCosts(space, config.metric_keys)
        keeps = bounds_check(known, constraints, space.costs)
        return SearchProblem(space, objectives, config.seed, keeps, known)
    if isinstance(space, ModelSpace) and signature is not None:
        keeps = bounds_check(CountedCosts(space, signature, runs_on.call), constraints, COMPLEXITY_METRICS)
        return SearchProblem(space, objectives, config.seed, keeps)
    return SearchProblem(space, objectives, config.seed)
