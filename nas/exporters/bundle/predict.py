"""Labels image files by the network beside this file. Needs numpy, Pillow and onnxruntime alone.

    python predict.py IMAGE... [--out DIR] [--raw DIR]

A segmentation network writes NAME.overlay.png, the image with its classes in colour, to --out; a classification network
prints each image's label. With --raw each answer is also kept as NAME.npy: the class of each pixel, or the classes'
probabilities.
"""

import argparse
import hashlib
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

_MAX_PIXELS = 100_000_000

Run = Callable[[np.ndarray], np.ndarray]
"""Maps images (B, C, H, W), float32 in 0 .. 1, to logits."""


class BadInputError(Exception):
    """Something that was given cannot be used; the message says what and why."""


def load_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a bundle, its ONNX file compared with what was written."""
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        name, digest = "model.onnx", manifest["files"]["model.onnx"]
        content = (folder / name).read_bytes()
    except FileNotFoundError as error:
        raise BadInputError(f"{folder} is no whole bundle: {error.filename} is missing") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{path} cannot be read as the manifest of a bundle: {error}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise BadInputError(f"{folder / name} is not what was written: its SHA-256 differs from the manifest's")
    return manifest


def open_image(path: Path) -> Image.Image:
    """Return an image as viewers show it, in 8 bits: turned by its EXIF orientation, in sRGB, transparency white."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MAX_PIXELS:
                size = f"{image.width} x {image.height} pixels"
                raise BadInputError(f"{path} has {size}, at most {_MAX_PIXELS:,} are read")
            image.load()
            profile = image.info.get("icc_profile")
            turned = ImageOps.exif_transpose(image)
    except FileNotFoundError as error:
        raise BadInputError(f"{path}: there is no such file") from error
    except BadInputError:
        raise
    except Exception as error:
        raise BadInputError(f"{path} cannot be read as an image: {error}") from error
    if turned.mode.startswith("I"):  # 16 bits: the upper 8
        values = np.asarray(turned).astype(np.int64)
        turned = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
    elif turned.mode == "F":
        raise BadInputError(f"{path} holds floating-point numbers, an image of 8 or 16 bits is needed")
    if turned.has_transparency_data:
        rgba = turned.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        turned = Image.alpha_composite(white, rgba).convert("RGB")
    return _in_srgb(turned, profile) if profile else turned


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        shown = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):  # broken, or of another colour space: as in viewers
        return image
    return shown or image


def to_input(image: Image.Image, contract: dict[str, Any]) -> np.ndarray:
    """Return an image as the network takes it: (1, C, H, W) float32 in 0 .. 1."""
    height, width = contract["image_size"]
    image = image.convert("L" if contract["channels"] == "grey" else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.float32).reshape(height, width, -1)
    scaled: np.ndarray = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]) / 255
    return scaled


def probabilities_of(logits: np.ndarray) -> np.ndarray:
    """Return the softmax over classes, the first dimension."""
    shifted: np.ndarray = np.exp(logits - logits.max(axis=0, keepdims=True))
    shifted /= shifted.sum(axis=0, keepdims=True)
    return shifted


def answer_of(logits: np.ndarray, is_dense: bool, size: tuple[int, int]) -> np.ndarray:
    """Return the class of each pixel, (H, W) uint8 of an image of `size` (width, height); or probabilities, (K,)."""
    probabilities = probabilities_of(logits.astype(np.float32))
    if not is_dense:
        return probabilities
    planes = [np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR)) for plane in probabilities]
    kind = np.uint8 if len(planes) <= 256 else np.uint16
    classes: np.ndarray = np.stack(planes).argmax(axis=0).astype(kind)
    return classes


def colours(n: int) -> np.ndarray:
    """Return a colour for each class, (n, 3) uint8: grey for the first, far apart for the others."""
    hues = np.array([[(int(255 * (k * 0.618034 % 1)), 190, 230) for k in range(max(n, 1))]], np.uint8)
    painted = np.asarray(Image.fromarray(hues, "HSV").convert("RGB"))[0]
    listed: np.ndarray = np.concatenate([np.array([[90, 90, 90]], np.uint8), painted])[:n]
    return listed


def overlay_of(image: Image.Image, class_map: np.ndarray, n_classes: int) -> Image.Image:
    """Return the image with its classes in colour."""
    painted = Image.fromarray(colours(n_classes)[class_map])
    return Image.blend(image.convert("RGB"), painted, 0.5)


def write_answer(
    path: Path, image: Image.Image, answer: np.ndarray, manifest: dict[str, Any], out: Path, raw: Path | None
) -> None:
    """Write or print what the network says of one image."""
    names = manifest["contract"]["class_names"]
    if raw is not None:
        raw.mkdir(parents=True, exist_ok=True)
        np.save(raw / f"{path.stem}.npy", answer)
    if manifest["is_dense"]:
        out.mkdir(parents=True, exist_ok=True)
        target = out / f"{path.stem}.overlay.png"
        overlay_of(image, answer, len(names)).save(target)
        shares = np.bincount(answer.ravel(), minlength=len(names)) / answer.size
        told = ", ".join(f"{names[k]} {shares[k]:.0%}" for k in np.argsort(-shares) if shares[k] >= 0.005)
        print(f"{path}: {told} -> {target}")
    else:
        best = int(answer.argmax())
        print(f"{path}: {names[best]} ({answer[best]:.1%})")


def session_of(path: Path) -> Run:
    """Return a function that maps a batch of images to logits."""
    import onnxruntime  # noqa: PLC0415 - torch's weights can be asked in its place

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BadInputError(f"onnxruntime {onnxruntime.__version__} cannot run {path}: {error}") from error
    name = session.get_inputs()[0].name
    return lambda images: np.asarray(session.run(None, {name: images})[0])


def label(manifest: dict[str, Any], run: Run, images: Sequence[Path], out: Path, raw: Path | None) -> None:
    """Label image files one after the other; `run` maps a batch of images to logits."""
    stems = [path.stem for path in images]
    if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise BadInputError(f"several images are called {twice[0]}: their answers would overwrite each other")
    for path in images:
        image = open_image(path)
        logits = run(to_input(image, manifest["contract"]))[0]
        write_answer(path, image, answer_of(logits, manifest["is_dense"], image.size), manifest, out, raw)


def main(arguments: Sequence[str] | None = None) -> None:
    """Label the images that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where overlays go; default: here")
    parser.add_argument("--raw", type=Path, metavar="DIR", help="also keep class maps or probabilities as .npy")
    given = parser.parse_args(arguments)
    folder = Path(__file__).resolve().parent
    try:
        manifest = load_manifest(folder)
        label(manifest, session_of(folder / "model.onnx"), given.images, given.out, given.raw)
    except (BadInputError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
