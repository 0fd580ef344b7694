"""A trained network as a folder of weights and of what builds it: read by `nas.load_model`."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from nas.errors import DamagedFileError, InputError
from nas.exporters.contract import Contract
from nas.exporters.formats import Exported, ExportOptions
from nas.exporters.product import Product
from nas.files import atomic_path, write_text
from nas.version import VERSION

MODEL_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"
_FORMAT = "pareto-nas model"
_KEYS = {
    "recipe": dict,
    "signature": dict,
    "normalization": dict,
    "class_names": list,
    "is_dense": bool,
    "origin": dict,
    "scores": dict,
}
_SNIPPET = """import nas, torch

network = nas.load_model("{name}")  # takes images in 0 .. 1, (B, C, H, W) float32
print(network(torch.zeros(1, {shape})).argmax(1))"""


def export_weights(product: Product, path: Path, options: ExportOptions) -> Exported:
    """Write a folder of the weights, safetensors, and the genotype with all that builds the network, JSON.

    Raises:
        ExportError: If options of ONNX files are given.
    """
    options.refuse_those_of_onnx()
    path.mkdir(parents=True, exist_ok=True)
    contract = Contract.of(product)
    weights, model = path / WEIGHTS_FILE, path / MODEL_FILE
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in product.network.state_dict().items()}
    with atomic_path(weights) as temporary:
        save_file(state, temporary)
    values = {
        "format": _FORMAT,
        "version": VERSION,
        "recipe": dict(product.recipe),
        "signature": {
            "in_channels": product.signature.in_channels,
            "image_size": list(product.signature.image_size),
            "n_classes": product.signature.n_classes,
        },
        "normalization": {"mean": list(product.normalization.mean), "std": list(product.normalization.std)},
        "class_names": list(product.class_names),
        "is_dense": product.is_dense,
        "origin": dict(product.origin),
        "scores": dict(product.scores),
        "contract": contract.to_mapping(),
    }
    write_text(model, json.dumps(values, indent=2) + "\n")
    shape = ", ".join(map(str, product.signature.input_shape))
    return Exported("safetensors", (model, weights), contract, _SNIPPET.format(name=path, shape=shape), ())


def read_model(folder: Path) -> dict[str, Any]:
    """Return what a folder of `export_weights` says of its network.

    Raises:
        InputError: If it is no such folder.
        DamagedFileError: If its description is not what was written.
    """
    path = folder / MODEL_FILE
    if not path.is_file():
        raise InputError(f"{folder} is no folder of an exported model: it holds no {MODEL_FILE}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.get("format") != _FORMAT:
            raise ValueError(f"it does not say format: {_FORMAT!r}")
        for key, kind in _KEYS.items():
            if not isinstance(values.get(key), kind):
                raise ValueError(f"{key} is not what is written there")
    except (ValueError, RecursionError, OSError) as error:
        raise DamagedFileError(f"{path} cannot be read: {error}; export the model again") from error
    return values
