"""From a run to files that run elsewhere: export, and reading an exported model back."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from torch import nn

from latency.devices.onnx_device import OnnxDevice
from nas import assembly
from nas.config import RunConfig, load_config
from nas.data.base import Split
from nas.data.cache import cache_examples
from nas.data.normalization import Normalization
from nas.data.training_split import training_split
from nas.errors import DataError, InputError
from nas.evaluation.base import ModelSignature
from nas.exporters import EXPORTERS, SUFFIXES, DataAtHand, Exported, ExportOptions, ImageNetwork, Product
from nas.exporters.weights_folder import WEIGHTS_FILE, read_model
from nas.pretrained.teacher import TEACHERS, TeacherSpec
from nas.pretrained.teacher_form import AS_NETWORKS_HERE, TeacherForm
from nas.registry import KINDS, find_object
from nas.store.run import Run
from nas.store.run_folder import RunFolder
from nas.tasks.base import Task
from nas.torch_tools import load_weights
from nas.values.records import Record
from search_spaces.base import ModelSpace
from search_spaces.references.reference_models import ReferenceModel

TEACHER = "teacher"
"""Names the run's teacher where a candidate is asked for."""

_N_CALIBRATED = 128  # training images


def export(run_dir: Path | str, candidate: str | None = None, **options: Any) -> Path:
    """Write a candidate's network to a file and return its path; arguments and errors as of `export_network`."""
    return export_network(run_dir, candidate, **options).paths[0]


def export_network(
    run_dir: Path | str,
    candidate: str | None = None,
    *,
    format: str = "onnx",
    path: Path | None = None,
    folder: Path | None = None,
    opset: int | None = None,
    any_size: bool = False,
    with_processing: bool = False,
    max_drop: float | None = None,
    overrides: Sequence[str] = (),
    trust_code: bool = False,
) -> Exported:
    """Write a candidate's network to a file, with its retrained weights if there are any, else the quick ones.

    What was written is compared with torch first: on validation images where the run's data is at hand, else on noise.

    Args:
        run_dir: The run's folder.
        candidate: Its id, or a unique prefix of it; the name of a reference model; `teacher`; by default the front's
            knee.
        format: A key of `EXPORTERS`.
        path: What to write: a file, or a folder for `safetensors`; by default of a name of its own in `folder`.
        folder: Where to write; by default `exports/` in the run's folder.
        opset: Of an ONNX file; `None` for the exporter's own.
        any_size: Whether an ONNX file of a segmentation network takes images of any size.
        with_processing: Whether an ONNX file takes images as they are decoded and gives labels.
        max_drop: The largest fall of a score by quantisation that is accepted; `None` for any.
        overrides: Of the run's configuration, such as `"data.root=/elsewhere"` for data that was moved.
        trust_code: Whether to import Python code that the run's configuration names.

    Returns:
        What was written, with what goes in and what comes out.

    Raises:
        InputError: If there is no such run or candidate, or it was never trained.
        ExportError: If the exported network's outputs differ from the trained one's; no file is left then.
    """
    if format not in EXPORTERS:
        raise InputError(f"format must be one of {', '.join(EXPORTERS)}, got {format!r}")
    run = Run.load(run_dir)
    record = chosen_record(run, candidate)
    settings = load_config(run.path / "config.yaml", overrides, trust_code)
    if path is not None and folder is not None:
        raise InputError("give the file to write, or the folder to write to, not both")
    with RunFolder.read(run.path) as opened:
        product = product_of(settings, opened, record)
        name = f"{product.origin['candidate']}.{product.origin['training']}{SUFFIXES[format]}"
        target = path or (folder or run.path / "exports") / name
        options = ExportOptions(opset, any_size, with_processing, max_drop, onnx_device(settings))
        try:
            return EXPORTERS[format](product, target, options)
        except OSError as error:
            raise InputError(f"{target} cannot be written: {error}") from error


def chosen_record(run: Run, candidate: str | None) -> Record | None:
    """Return the record of a candidate, by default the knee's; `None` for the teacher.

    Raises:
        InputError: If there is none.
    """
    if candidate == TEACHER:
        return None
    return run.knee if candidate is None else run.find(candidate)


def product_of(settings: RunConfig, folder: RunFolder, record: Record | None) -> Product:
    """Return the trained network of a record, or the teacher for `None`, with what its users must know.

    Raises:
        InputError: If it was never trained.
        DamagedFileError: If its weights are damaged.
    """
    signature = assembly.stored_signature(folder)
    network, origin, recipe, scores = _teacher(settings, folder) if record is None else _of(settings, folder, record)
    return Product(
        network.eval(),
        signature,
        Normalization.from_values(**folder.store.fact("normalization")),
        tuple(folder.store.fact("class_names")),
        is_dense=bool(settings.task and settings.task.cls.is_dense),
        origin=origin,
        recipe=recipe,
        scores=scores,
        data=data_at_hand(settings, folder),
    )


_Parts = tuple[nn.Module, dict[str, str], dict[str, Any], dict[str, float]]


def _of(settings: RunConfig, folder: RunFolder, record: Record) -> _Parts:
    """Return the network, origin, recipe and scores of a record."""
    training = next((t for t in ("retrained", "quick") if folder.weights(record.id, t).exists()), None)
    if training is None:
        raise InputError(f"{folder.path}: candidate {record.id} ({record.state}) has no trained weights to export")
    subject = assembly.stored_subject(settings, folder, record.candidate)
    assembly.load_candidate(subject.model, folder, record.id, training)
    origin = {"candidate": record.id, "network": record.candidate.description, "training": training}
    scores = {**record.metrics, **{f"test_{metric}": value for metric, value in record.retrained.items()}}
    return subject.model, origin, _recipe(settings, record), scores


def _teacher(settings: RunConfig, folder: RunFolder) -> _Parts:
    """Return the same of the teacher."""
    network, spec = assembly.stored_teacher(settings, folder), settings.teacher
    assert spec is not None  # noqa: S101 - stored_teacher refuses a run without one
    origin = {
        "candidate": TEACHER,
        "network": f"{spec.kind}, the teacher of the search",
        "training": "full" if spec.given is None else "given",
    }
    recipe: dict[str, Any] = {"kind": spec.kind, "options": dict(spec.options), "is_reference": True}
    if spec.form != AS_NETWORKS_HERE:
        recipe["form"] = asdict(spec.form)
    return network, origin, recipe, dict((folder.store.fact("teacher") or {}).get("scores", {}))


def data_at_hand(settings: RunConfig, folder: RunFolder) -> DataAtHand | None:
    """Return the run's images; `None` where they cannot be read, or are other ones now."""
    if settings.data is None or settings.task is None:
        return None
    dataset = settings.data.instance
    try:
        dataset.check()
        if dataset.fingerprint() != folder.store.fact("data"):
            return None
        training = training_split(folder.artifacts, dataset, 0).first(_N_CALIBRATED).images
        validation = cache_examples(folder.artifacts, dataset, Split.VALIDATION).load()
    except (DataError, OSError):
        return None
    return DataAtHand(validation, training, task_of(settings))


def task_of(settings: RunConfig) -> Task:
    """Return the task of a configuration that has data."""
    assert settings.task is not None  # noqa: S101 - the reader fills it in where there is data
    assert settings.data is not None  # noqa: S101 - the caller's promise
    dataset = settings.data.instance
    task: Task = settings.task.instance or settings.task.cls(
        dataset.class_names, dataset.ignore_index, **settings.task.options
    )
    return task


def load_model(folder: Path | str, *, trust_code: bool = False) -> ImageNetwork:
    """Return the network that `nas export --format safetensors` wrote to a folder, in eval mode.

    Args:
        folder: Of the export.
        trust_code: Whether to import Python code that it names: a search space of one's own.

    Returns:
        Maps images `(B, C, H, W)`, float32 in 0 .. 1, to logits.

    Raises:
        InputError: If it is no such folder, or names code that is not trusted.
        DamagedFileError: If its files are not what was written.
    """
    folder = Path(folder)
    values = read_model(folder)
    sizes = values["signature"]
    signature = ModelSignature(sizes["in_channels"], tuple(sizes["image_size"]), sizes["n_classes"])
    normalization = Normalization.from_values(**values["normalization"])
    network = _build(folder, values["recipe"], signature, normalization, trust_code)
    try:
        load_weights(network, folder / WEIGHTS_FILE)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{folder / WEIGHTS_FILE} does not hold this model's weights: {error}") from error
    return ImageNetwork(network, normalization).eval()


def _build(
    folder: Path, recipe: dict[str, Any], signature: ModelSignature, normalization: Normalization, trust_code: bool
) -> Any:
    """Return the network of a recipe, untrained."""
    sizes = {"in_channels": signature.in_channels, "n_classes": signature.n_classes}
    try:
        kind, options = recipe["kind"], recipe["options"]
        own = find_object(kind, trust_code, "recipe.kind") if ":" in kind else None
        if recipe.get("is_reference"):
            network = (own or TEACHERS[kind])(*sizes.values(), **options)
            form = TypeAdapter(TeacherForm).validate_python(recipe.get("form", {}))
            return TeacherSpec(kind, options, form=form).formed(network, folder, **sizes, normalization=normalization)
        cls = own or KINDS["search_space"].classes[kind]
        space = cls(**{name: _listed(value) for name, value in options.items()})
        if not isinstance(space, ModelSpace):
            raise InputError(f"{folder}: a {kind} builds no networks")
        return space.build(space.genotype(recipe["genes"]), **sizes, seed=0)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder}: the model cannot be built: {error}") from error


def _listed(value: Any) -> Any:
    """Return a JSON value as options take it: tuples for lists."""
    return tuple(map(_listed, value)) if isinstance(value, list) else value


def _recipe(settings: RunConfig, record: Record) -> dict[str, Any]:
    """Return what builds a record's network, as plain values."""
    name = record.candidate.genotype.space
    kind = name.removeprefix(ReferenceModel.prefix)
    if kind != name:
        return {"kind": kind, "options": {}, "is_reference": True}
    section = settings.to_mapping()["search_space"]
    options = {key: value for key, value in section.items() if key != "kind"}
    return {"kind": section["kind"], "options": options, "genes": list(record.candidate.genotype.genes)}


def onnx_device(settings: RunConfig) -> OnnxDevice:
    """Return the run's onnxruntime device, the first if it has several; one on this CPU if it has none."""
    devices = [section.instance for section in settings.devices.values()]
    return next((device for device in devices if isinstance(device, OnnxDevice)), OnnxDevice())
