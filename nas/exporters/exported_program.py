"""A trained network as torch's exported program: runs where torch does, without this project."""

import io
from pathlib import Path

import numpy as np
import torch

from nas.errors import ExportError
from nas.exporters.contract import Contract
from nas.exporters.formats import Exported, ExportOptions
from nas.exporters.product import Product
from nas.exporters.verification import compare
from nas.files import atomic_path

_MAX_BATCH = 4096
_SNIPPET = """import numpy, torch
from PIL import Image

pixels = Image.open("IMAGE").convert("{mode}").resize(({width}, {height}), Image.Resampling.BILINEAR)
image = numpy.array(pixels, numpy.float32).reshape({height}, {width}, -1).transpose(2, 0, 1)[None] / 255
network = torch.export.load("{name}").module()
print(network(torch.from_numpy(image)).argmax(1))"""


def export_program(product: Product, path: Path, options: ExportOptions) -> Exported:
    """Write a trained network as an `ExportedProgram` (.pt2), for batches of 1 to 4,096 images in 0 .. 1.

    Raises:
        ExportError: If torch cannot export it, or the file computes something else; no file is left then.
    """
    options.refuse_those_of_onnx()
    height, width = product.signature.image_size
    example = torch.zeros(2, *product.signature.input_shape)
    sides = ({0: torch.export.Dim("batch", min=1, max=_MAX_BATCH)},)
    try:
        with torch.no_grad():
            program = torch.export.export(product.image_network(), (example,), dynamic_shapes=sides)
        content = io.BytesIO()
        torch.export.save(program, content)
        content.seek(0)
        network = torch.export.load(content).module()
    except Exception as error:
        raise ExportError(f"{path} was not written: torch cannot export the network: {error}") from error

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(network(torch.from_numpy(images)))

    compared = compare(product, run)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getvalue())
    mode = "L" if product.signature.in_channels == 1 else "RGB"
    code = _SNIPPET.format(mode=mode, width=width, height=height, name=path.name)
    return Exported("exported_program", (path,), Contract.of(product), code, compared)
