"""Where the published portrait and face data sets keep their images, masks and splits."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.data.decoding import decode_plane
from nas.data.faults import FaultList


@dataclass(frozen=True)
class SourcePair:
    """One image of a published data set.

    Attributes:
        split: `train`, `val` or `test`.
        name: Its name in the prepared folder, without suffix.
        image: Its file.
        read_mask: Returns the class of each pixel, `(H, W)` uint8; raises `DataError`.
    """

    split: str
    name: str
    image: Path
    read_mask: Callable[[], np.ndarray]


@dataclass(frozen=True)
class PublishedLayout:
    """A data set as its authors publish it.

    Attributes:
        class_names: In order of their index in the prepared masks.
        flip_pairs: Classes that become each other in a mirrored image.
        find_pairs: Returns the pairs in a folder, and adds what is wrong with lists and folders to the faults.
    """

    class_names: tuple[str, ...]
    flip_pairs: tuple[tuple[str, str], ...]
    find_pairs: Callable[[Path, FaultList], list[SourcePair]]


_CELEBA_PARTS = (
    "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
_CELEBA_PER_FOLDER = 2000
_CELEBA_FIRST_VALIDATION, _CELEBA_FIRST_TEST = 162_771, 182_638


def find_celebamask_hq(source: Path, faults: FaultList) -> list[SourcePair]:
    """Return the pairs of CelebAMask-HQ, whose mask annotations are a file for each part of a face.

    `CelebA-HQ-img/K.jpg`, `CelebAMask-HQ-mask-anno/FOLDER/KKKKK_PART.png` (K of five digits, 2000 images a folder,
    not 0 where the part is) and `CelebA-HQ-to-CelebA-mapping.txt` (columns idx, orig_idx, orig_file), which says
    an image's split: that of the CelebA image it was made from.

    Source:
        Lee et al. 2020, arXiv:1907.11922; the order of parts and the split as in the authors' tools (g_mask.py,
        g_partition.py): a later part covers an earlier one.
    """
    annotations = source / "CelebAMask-HQ-mask-anno"
    mapping = source / "CelebA-HQ-to-CelebA-mapping.txt"
    listed = {}
    for number, line in _lines(mapping, faults):
        fields = line.split()
        if fields[0] == "idx":
            continue
        if len(fields) < 2 or not (fields[0].isdigit() and fields[1].isdigit()):
            faults.add(mapping, f"line {number}: must start with two integers, got {line!r}")
            continue
        listed[int(fields[0])] = int(fields[1])
    names_of = functools.cache(lambda folder: {path.name for path in folder.iterdir()} if folder.is_dir() else set())
    pairs = []
    for index, original in listed.items():
        folder = annotations / str(index // _CELEBA_PER_FOLDER)
        files = [f"{index:05d}_{part}.png" for part in _CELEBA_PARTS]
        parts = [(label, folder / name) for label, name in enumerate(files, 1) if name in names_of(folder)]
        if not parts:
            faults.add(folder / f"{index:05d}_*.png", "no part of this face is there")
            continue
        split = "train" if original < _CELEBA_FIRST_VALIDATION else "val" if original < _CELEBA_FIRST_TEST else "test"
        image = source / "CelebA-HQ-img" / f"{index}.jpg"
        pairs.append(SourcePair(split, str(index), image, functools.partial(_merged, parts)))
    return pairs


def find_eg1800(source: Path, faults: FaultList) -> list[SourcePair]:
    """Return the pairs of EG1800 as PortraitNet's authors publish it.

    `Images/NAME`, `Labels/NAME` as .png, and the lists of names `eg1800_train.txt` and `eg1800_test.txt`; there is no
    list for validation. In a label 1 is the portrait and all else background; where there is 255 and no 1, it is 255.

    Source:
        Shen et al. 2016, doi:10.1111/cgf.12814; Zhang et al. 2019, doi:10.1016/j.cag.2019.03.007.
    """
    pairs = []
    for split in ("train", "test"):
        for _, line in _lines(source / f"eg1800_{split}.txt", faults):
            label = (source / "Labels" / line).with_suffix(".png")
            read_mask = functools.partial(_portrait, label)
            pairs.append(SourcePair(split, Path(line).stem, source / "Images" / line, read_mask))
    return pairs


_HELEN_CLASSES = (
    "background", "skin", "left_eyebrow", "right_eyebrow", "left_eye", "right_eye", "nose",
    "upper_lip", "inner_mouth", "lower_lip", "hair",
)  # fmt: skip
_HELEN_LISTS = {"train": "exemplars.txt", "val": "tuning.txt", "test": "testing.txt"}


def find_helen(source: Path, faults: FaultList) -> list[SourcePair]:
    """Return the pairs of Helen with the segment labels of Smith et al., resized or original.

    `images/NAME.jpg`, `labels/NAME/NAME_lblXX.png` (the probability of class XX at each pixel, 255 for 1) and the
    lists `exemplars.txt` (training), `tuning.txt` (validation) and `testing.txt`, each line a number, a comma and a
    name. A pixel's class is the most probable one.

    Source:
        Le et al. 2012, doi:10.1007/978-3-642-33712-3_49; Smith et al. 2013, doi:10.1109/CVPR.2013.447.
    """
    pairs = []
    for split, file in _HELEN_LISTS.items():
        for number, line in _lines(source / file, faults):
            name = line.partition(",")[2].strip()
            if not name:
                faults.add(source / file, f"line {number}: must be a number, a comma and a name, got {line!r}")
                continue
            folder = source / "labels" / name
            maps = [folder / f"{name}_lbl{label:02d}.png" for label in range(len(_HELEN_CLASSES))]
            image = source / "images" / f"{name}.jpg"
            pairs.append(SourcePair(split, name, image, functools.partial(_most_probable, maps)))
    return pairs


PUBLISHED_LAYOUTS = {
    "celebamask_hq": PublishedLayout(
        ("background", *_CELEBA_PARTS),
        (("l_eye", "r_eye"), ("l_brow", "r_brow"), ("l_ear", "r_ear")),
        find_celebamask_hq,
    ),
    "eg1800": PublishedLayout(("background", "portrait"), (), find_eg1800),
    "helen": PublishedLayout(
        _HELEN_CLASSES, (("left_eyebrow", "right_eyebrow"), ("left_eye", "right_eye")), find_helen
    ),
}


def _lines(path: Path, faults: FaultList) -> Iterator[tuple[int, str]]:
    """Yield the lines of a list that are not empty, with their numbers."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        faults.add(path, f"cannot be read ({getattr(error, 'strerror', None) or 'no UTF-8 text'})")
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def _merged(parts: Sequence[tuple[int, Path]]) -> np.ndarray:
    planes = _planes([path for _, path in parts])
    mask = np.zeros(planes[0].shape, dtype=np.uint8)
    for (label, _), plane in zip(parts, planes, strict=True):
        mask[plane > 0] = label
    return mask


def _portrait(path: Path) -> np.ndarray:
    (label,) = _planes([path])
    portrait = 1 if (label == 1).any() else 255
    mask: np.ndarray = (label == portrait).astype(np.uint8)
    return mask


def _most_probable(paths: Sequence[Path]) -> np.ndarray:
    mask: np.ndarray = np.stack(_planes(paths)).argmax(axis=0).astype(np.uint8)
    return mask


def _planes(paths: Sequence[Path]) -> list[np.ndarray]:
    """Return the files of one mask as grey `(H, W)` uint8 arrays of one size.

    Raises:
        DataError: Naming all that cannot be read or differ in size from the first.
    """
    faults = FaultList()
    planes = [faults.attempt(functools.partial(decode_plane, path)) for path in paths]
    read = [(path, plane) for path, plane in zip(paths, planes, strict=True) if plane is not None]
    for path, plane in read:
        if plane.shape != read[0][1].shape:
            faults.add(path, f"is {_size(plane)}, {read[0][0].name} is {_size(read[0][1])}")
    faults.raise_if_any()
    return [plane for _, plane in read]


def _size(plane: np.ndarray) -> str:
    return f"{plane.shape[1]} x {plane.shape[0]} pixels"
