"""Writes a bundle: formats, manifest, model card, pictures and predict.py, all of them or nothing."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nas.errors import ExportError, InputError
from nas.exporters.bundle.card import model_card, predictions
from nas.exporters.exported_program import export_program
from nas.exporters.formats import Export, Exported, ExportOptions
from nas.exporters.int8 import export_int8
from nas.exporters.onnx_file import export_onnx
from nas.exporters.product import Product
from nas.exporters.python_source import export_python
from nas.exporters.weights_folder import export_weights
from nas.files import file_hash, temporary_name

MANIFEST = "manifest.json"
_FORMAT = "pareto-nas bundle"
_NAMES: Mapping[str, tuple[str, Export]] = {
    "onnx": ("model.onnx", export_onnx),
    "safetensors": ("weights", export_weights),
    "onnx_int8": ("model.int8.onnx", export_int8),
    "exported_program": ("model.pt2", export_program),
    "python": ("network.py", export_python),
}
ALWAYS = ("onnx", "safetensors")
"""What every bundle holds: predict.py reads the one, `nas predict` the other."""


@dataclass(frozen=True)
class Bundle:
    """What a bundle tells beside the network.

    Attributes:
        title: Of the model card.
        facts: For the manifest, plain JSON values: genotype, metrics with their conditions, configuration, versions.
        figures: By file name: the front with the network marked, for the card.
        drawing: Of the network's architecture, SVG; empty where the space draws none.
    """

    title: str
    facts: Mapping[str, Any]
    figures: Mapping[str, Figure] = field(default_factory=dict)
    drawing: str = ""


def write_bundle(
    product: Product, bundle: Bundle, folder: Path, formats: Sequence[str], options: ExportOptions
) -> list[Exported]:
    """Write a bundle to `folder`, which must not be there yet.

    Returns:
        What was exported, `onnx` first.

    Raises:
        InputError: If the folder is there, or cannot be written.
        ExportError: If a format cannot be written; nothing is left then.
    """
    if unknown := [name for name in formats if name not in _NAMES]:
        raise InputError(f"formats must be of {', '.join(_NAMES)}, got {', '.join(unknown)}")
    if folder.exists():
        raise InputError(f"{folder} is there already: give a folder that is not, or remove it")
    draft = folder.parent / temporary_name(folder.name)
    try:
        draft.mkdir(parents=True)
        wanted = tuple(dict.fromkeys((*ALWAYS, *formats)))
        exported = [_written(product, draft, name, options) for name in wanted]
        _write_rest(product, bundle, draft, exported)
        draft.replace(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return exported


def _written(product: Product, folder: Path, name: str, options: ExportOptions) -> Exported:
    file, export = _NAMES[name]
    plain = ExportOptions(opset=options.opset if name.startswith("onnx") else None, device=options.device)
    if name == "onnx_int8":
        plain = ExportOptions(options.opset, max_drop=options.max_drop, device=options.device)
    try:
        return export(product, folder / file, plain)
    except ExportError as error:
        raise ExportError(f"--format {name}: {error}") from error


def _write_rest(product: Product, bundle: Bundle, folder: Path, exported: Sequence[Exported]) -> None:
    """Write what is made once the formats are there: pictures, script, card, and the manifest last."""
    pictures = dict(bundle.figures)
    if (figure := predictions(product)) is not None:
        pictures["predictions.png"] = figure
    for name, picture in pictures.items():
        picture.savefig(folder / name, dpi=110)
    if bundle.drawing:
        (folder / "network.svg").write_text(bundle.drawing, encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name("predict.py"), folder / "predict.py")
    scores = product.data.score(product.run) if product.data is not None else {}
    card = model_card(product, bundle.title, bundle.facts, exported, scores, [*pictures, *_drawn(bundle)])
    (folder / "README.md").write_text(card, encoding="utf-8")
    manifest = {
        "format": _FORMAT,
        "title": bundle.title,
        "is_dense": product.is_dense,
        "contract": exported[0].contract.to_mapping(),
        "normalization": asdict(product.normalization),
        "origin": dict(product.origin),
        "validation_scores": scores,
        "formats": {one.format: _format_facts(one, folder) for one in exported},
        **bundle.facts,
        "files": {
            str(path.relative_to(folder)): file_hash(path) for path in sorted(folder.rglob("*")) if path.is_file()
        },
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, default=str) + os.linesep, encoding="utf-8")


def _drawn(bundle: Bundle) -> list[str]:
    return ["network.svg"] if bundle.drawing else []


def _format_facts(exported: Exported, folder: Path) -> dict[str, Any]:
    return {
        "files": [str(path.relative_to(folder)) for path in exported.paths],
        "compared_with_torch": [asdict(comparison) for comparison in exported.comparisons],
        **exported.facts,
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a bundle, every file of it compared with what was written.

    Raises:
        InputError: If it is no bundle, or a file is missing or has changed, naming it.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder} is no bundle: it holds no {MANIFEST}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
            raise ValueError(f"it does not say format: {_FORMAT!r}")
        files = dict(manifest["files"])
        contract, is_dense = manifest["contract"], manifest["is_dense"]
        if not isinstance(contract, dict) or not isinstance(is_dense, bool):
            raise ValueError("its contract is not what is written there")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as the manifest of a bundle: {error}") from error
    for name, digest in files.items():
        file = folder / name
        if not file.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{path} names a file outside of the bundle: {name}")
        if not file.is_file():
            raise InputError(f"{file} is missing: the bundle is not whole")
        if file_hash(file) != digest:
            raise InputError(f"{file} is not what was written: its SHA-256 differs from the manifest's")
    return manifest
