"""Images and masks whose names go together, in the folders that two patterns say."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nas.data.base import Split
from nas.data.faults import FaultList, shown_path
from nas.data.layouts import NAME, advice, common_affix
from nas.data.scanning import SPLIT, SPLIT_NAMES, LeftOut, check_pattern, find_folder, list_images, split_of, visible
from nas.errors import DataFault


@dataclass(frozen=True)
class Pair:
    """An image and its mask."""

    image: Path
    mask: Path


@dataclass(frozen=True)
class PairPatterns:
    """Where images and masks lie under the root.

    Attributes:
        images: The folder of images; may hold `{split}`.
        masks: The path of a mask without its suffix; holds `{name}` in its last part.

    Raises:
        ValueError: If one of both cannot be.
    """

    images: str
    masks: str

    def __post_init__(self) -> None:
        check_pattern("images", self.images)
        check_pattern("masks", self.masks, ends=NAME)
        if (SPLIT in self.images) != (SPLIT in self.mask_folder):
            raise ValueError(f"masks must hold {SPLIT} where images does, got {self.masks!r} beside {self.images!r}")

    @property
    def has_splits(self) -> bool:
        """Whether each split has a folder of its own."""
        return SPLIT in self.images

    @property
    def mask_folder(self) -> str:
        """The pattern of the folder of masks."""
        folder, _, _ = self.masks.rpartition("/")
        return folder or "."

    @property
    def around(self) -> tuple[str, str]:
        """What stands before and after an image's name in its mask's."""
        before, _, after = PurePosixPath(self.masks).name.partition(NAME)
        return before, after

    def find(self, root: Path, split: Split) -> Path | None:
        """Return the top folder of a split, which is enough to say that it is there; `None` if it is not.

        Raises:
            DataError: If there are two.
        """
        top = self.images.split("/")[0] if SPLIT in self.images.split("/")[0] else self.images
        return find_folder(root, top, split)

    def shown(self, root: Path, split: Split) -> str:
        """Return where a split is, for a sentence."""
        place = self.find(root, split) or root
        return shown_path(root if place == root else place.relative_to(root).as_posix() + "/")

    def missing(self, root: Path, split: Split) -> DataFault:
        """Return the fault that a split has no folder."""
        if split is Split.TEST and not self.has_splits:
            text = "has no test split"
            return DataFault(shown_path(root), text, remedy="write `data: {test_fraction: 0.1}` and search anew")
        where = root / self.images.replace(SPLIT, split.value)
        top = where if SPLIT not in self.images.split("/")[0] else root / where.relative_to(root).parts[0]
        remedy = "make it, or write `data: {test_fraction: 0.1}` and search anew" if split is Split.TEST else ""
        return DataFault(shown_path(top), "folder is missing", remedy=remedy)

    def pairs(self, root: Path, split: Split, faults: FaultList, left_out: LeftOut) -> list[Pair]:
        """Return the pairs of a split, sorted by name.

        Added to `faults`: every image without a mask, mask without an image, and name that is there twice.
        """
        folders = [self._folder(root, pattern, split, faults) for pattern in (self.images, self.mask_folder)]
        image_folder, mask_folder = folders
        if image_folder is None or mask_folder is None:
            return []
        images = list_images(image_folder, left_out)
        if image_folder == mask_folder:
            masks = [path for path in images if self._image_name(path) is not None]
            images = [path for path in images if self._image_name(path) is None]
        else:
            masks = list_images(mask_folder, left_out)
        if not images and not masks:
            faults.add(image_folder, "holds no images", remedy=_what_is_there(image_folder))
        return self._matched(images, masks, mask_folder, faults)

    def add_left_out(self, root: Path, left_out: LeftOut) -> None:
        """Add what lies beside the folders of the splits, and beside those of images and masks in them."""
        if self.images == ".":
            return  # what is no image there was named already
        tops = {pattern.split("/")[0] for pattern in (self.images, self.mask_folder)}
        split_tops = {top for top in tops if SPLIT in top}
        for path in visible(root, left_out):
            if not self._is_read(path, tops):
                left_out.add("of no split", path)
            elif path.is_dir() and len(split_tops) == 1 and self.images.count("/") == 1:
                self._add_beside(path, left_out)

    def _add_beside(self, folder: Path, left_out: LeftOut) -> None:
        names = {pattern.rpartition("/")[2].casefold() for pattern in (self.images, self.mask_folder)}
        for path in visible(folder, left_out) if split_of(folder.name) is not Split.TEST else ():
            if path.name.casefold() not in names:
                left_out.add("beside images and masks", path)

    def _is_read(self, path: Path, tops: set[str]) -> bool:
        known = {
            top.replace(SPLIT, name).casefold() for top in tops for names in SPLIT_NAMES.values() for name in names
        }
        return path.is_dir() and path.name.casefold() in known

    def _folder(self, root: Path, pattern: str, split: Split, faults: FaultList) -> Path | None:
        folder = faults.attempt(lambda: find_folder(root, pattern, split))
        if folder is None:
            first, _, rest = pattern.partition("/")
            top = find_folder(root, first, split) if SPLIT in first else None
            shown = root / pattern.replace(SPLIT, split.value) if top is None else top / rest
            faults.add(shown, "folder is missing", remedy=advice(root) if split is Split.TRAIN else "")
        return folder

    def _image_name(self, mask: Path) -> str | None:
        """Return the name of the image that a mask is of; `None` if its name does not fit the pattern."""
        before, after = self.around
        name = mask.stem
        if len(name) > len(before + after) and name.startswith(before) and name.endswith(after):
            return name[len(before) : len(name) - len(after)]
        return None

    def _matched(
        self, image_files: Sequence[Path], mask_files: Sequence[Path], mask_folder: Path, faults: FaultList
    ) -> list[Pair]:
        images = _by_name({path: path.stem for path in image_files}, faults)
        named = {path: self._image_name(path) for path in mask_files}
        masks = _by_name({path: name for path, name in named.items() if name is not None}, faults)
        for path, name in named.items():
            if name is None:
                faults.add(
                    path,
                    f"is no mask's name: must be {PurePosixPath(self.masks).name}",
                    group="files are no masks by name",
                )
        self._add_single(images, masks, mask_folder, faults)
        return [Pair(images[name], masks[name]) for name in sorted(images.keys() & masks.keys())]

    def _add_single(
        self, images: Mapping[str, Path], masks: Mapping[str, Path], mask_folder: Path, faults: FaultList
    ) -> None:
        before, after = self.around
        alone = sorted(images.keys() - masks.keys())
        without = sorted(masks.keys() - images.keys())
        hint = self._affix_hint(alone, without)
        for name in alone:
            expected = mask_folder / f"{before}{name}{after}.png"
            near = next((masks[other] for other in without if _is_near(name, other)), None)
            beside = f", near it is {shown_path(near.name)}" if near is not None else ""
            faults.add(
                images[name],
                f"has no mask {shown_path(expected)}{beside}",
                group="images have no mask",
                remedy=hint or "add the masks, or take the images out",
            )
        for name in without if not hint else ():
            faults.add(
                masks[name],
                "has no image",
                group="masks have no image",
                remedy="add the images, or take the masks out",
            )

    def _affix_hint(self, alone: Sequence[str], without: Sequence[str]) -> str:
        """Return what to write where masks are called as their images but for a beginning or an ending."""
        affix = common_affix(alone, without)
        if affix is None:
            return ""
        place = "" if self.mask_folder == "." else f"{self.mask_folder}/"
        before, after = self.around
        pattern = f"{place}{before}{affix[0]}{NAME}{affix[1]}{after}"
        return f'if these are their masks, write `data: {{masks: "{pattern}"}}`'


def _is_near(name: str, other: str) -> bool:
    """Whether two names may be meant to be equal: but for capitals, or for what is added to the one."""
    name, other = name.casefold(), other.casefold()
    return name == other or (min(len(name), len(other)) > 2 and (name in other or other in name))


def _by_name(names: Mapping[Path, str], faults: FaultList) -> dict[str, Path]:
    """Return paths by names, in which equal letters have equal codes: macOS writes accents apart."""
    found: dict[str, Path] = {}
    for path, written in names.items():
        name = unicodedata.normalize("NFC", written)
        if name in found:
            faults.add(
                path,
                f"has the same name as {shown_path(found[name].name)}",
                group="files have the name of another",
                remedy="keep one of each name",
            )
        found[name] = path
    return found


def _what_is_there(folder: Path) -> str:
    left_out = LeftOut()
    list_images(folder, left_out)
    line = left_out.line()
    return line.rstrip(".").replace("Left out", "there are") if line else "it is empty"
