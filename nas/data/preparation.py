"""Brings a published data set into the folders of images and masks that `image_mask_folder` reads."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from nas.data.decoding import decode_image
from nas.data.faults import FaultList
from nas.data.published_layouts import PUBLISHED_LAYOUTS, PublishedLayout, SourcePair
from nas.errors import InputError
from nas.files import atomic_path, write_text

SECTIONS_FILE = "sections.yaml"
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made.

    Attributes:
        path: The folder.
        n_pairs: By split, the pairs that it holds.
        sections: The sections `data` and `task` of a configuration that reads it, as YAML; kept in the folder too.
    """

    path: Path
    n_pairs: dict[str, int]
    sections: str


def prepare(
    layout_name: str,
    source: Path,
    output: Path,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Write `SPLIT/images/NAME`, `SPLIT/masks/NAME.png` and the names of the classes to the folder `output`.

    The folder appears when it is whole: until then what is done lies beside it, in `.NAME.partial`, and the next
    call with the same arguments goes on there. An image is copied as it is; one of another size than its mask is
    resized to the mask's, as JPEG of quality 95.

    Args:
        layout_name: A name in `PUBLISHED_LAYOUTS`.
        source: The folder as it is published.
        output: The folder to make.
        overwrite: Whether a folder that is there is replaced, once the new one is whole.
        on_progress: Called after each pair with the number of those done and of all.

    Raises:
        InputError: If `output` is there and is not to be replaced.
        DataError: Naming every list, image and mask that is missing or broken. The sound pairs are kept.
    """
    if output.exists() and not (overwrite and (output / SECTIONS_FILE).is_file()):
        advice = "pass --overwrite to replace it" if (output / SECTIONS_FILE).is_file() else "name another folder"
        raise InputError(f"--output: {output} is there already; {advice}")
    layout = PUBLISHED_LAYOUTS[layout_name]
    faults = FaultList()
    pairs = _unique(layout.find_pairs(source, faults), faults)
    if not pairs:
        faults.add(source, f"holds no pair of {layout_name}")
        raise faults.error()
    n_pairs = dict(Counter(pair.split for pair in pairs))
    partial = output.with_name(f".{output.name}.partial")
    sections = _sections(layout, output)
    _start(partial, f"# {layout_name} from {source.resolve()}\n{sections}", n_pairs)
    _write_pairs(pairs, partial, faults, on_progress)
    faults.raise_if_any()
    _replace(partial, output)
    return Prepared(output, n_pairs, sections)


def _unique(pairs: Sequence[SourcePair], faults: FaultList) -> list[SourcePair]:
    """Return the pairs with those dropped, and named, that a list of the data set holds again."""
    unique: dict[tuple[str, str], SourcePair] = {}
    for pair in pairs:
        if unique.setdefault((pair.split, pair.name), pair) is not pair:
            faults.add(pair.image, f"is listed twice for {pair.split}")
    return list(unique.values())


def _sections(layout: PublishedLayout, output: Path) -> str:
    """Return what a configuration says to read the folder; JSON's lists and texts are YAML too."""
    lines = [
        "data:",
        "  kind: image_mask_folder",
        f"  root: {json.dumps(str(output.resolve()))}",
        f"  class_names: {json.dumps(list(layout.class_names))}",
        "  image_size: 256",
        "task:",
        "  kind: segmentation",
    ]
    if layout.flip_pairs:
        lines.append(f"  flip_pairs: {json.dumps(layout.flip_pairs)}")
    return "\n".join(lines) + "\n"


def _start(partial: Path, heading: str, splits: Iterable[str]) -> None:
    """Make the folder to write to, or keep one that an earlier call with the same arguments left."""
    marker = partial / SECTIONS_FILE
    if partial.exists() and not (marker.is_file() and marker.read_text(encoding="utf-8") == heading):
        shutil.rmtree(partial)
    for split in splits:
        for part in ("images", "masks"):
            (partial / split / part).mkdir(parents=True, exist_ok=True)
    write_text(marker, heading)


def _write_pairs(
    pairs: Sequence[SourcePair],
    partial: Path,
    faults: FaultList,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Write all pairs; decoding images releases Python's lock, so threads are enough."""
    pool = ThreadPoolExecutor()
    try:
        futures = [pool.submit(_write_pair, pair, partial / pair.split) for pair in pairs]
        for n_done, future in enumerate(futures, 1):
            faults.attempt(future.result)
            if on_progress is not None:
                on_progress(n_done, len(pairs))
    finally:
        pool.shutdown(cancel_futures=True)


def _write_pair(pair: SourcePair, folder: Path) -> None:
    """Write a pair unless it is there; the mask last, so that where there is one the pair is whole."""
    mask_path = folder / "masks" / f"{pair.name}.png"
    if mask_path.exists():
        return
    faults = FaultList()
    image = faults.attempt(lambda: decode_image(pair.image))
    mask = faults.attempt(pair.read_mask)
    if image is not None and mask is not None and image.width * mask.shape[0] != image.height * mask.shape[1]:
        sizes = f"{image.width} x {image.height} pixels, its mask {mask.shape[1]} x {mask.shape[0]}"
        faults.add(pair.image, f"is {sizes}: not the same picture")
    faults.raise_if_any()
    assert image is not None  # noqa: S101 - its fault would have been raised
    assert mask is not None  # noqa: S101 - likewise
    size = (mask.shape[1], mask.shape[0])
    if image.size == size:
        with atomic_path(folder / "images" / f"{pair.name}{pair.image.suffix.lower()}") as path:
            shutil.copyfile(pair.image, path)
    else:
        with atomic_path(folder / "images" / f"{pair.name}.jpg") as path:
            resized = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
            resized.save(path, quality=_JPEG_QUALITY)
    with atomic_path(mask_path) as path:
        Image.fromarray(mask).save(path)


def _replace(partial: Path, output: Path) -> None:
    """Give the finished folder its name; one that has it already goes when the new one is there."""
    old = output.with_name(f".{output.name}.old")
    if old.exists():
        shutil.rmtree(old)
    if output.exists():
        output.rename(old)
    partial.rename(output)
    shutil.rmtree(old, ignore_errors=True)
