"""The one place where folders are listed: which folder is a split's, which files are images, and what is left out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nas.data.base import Split
from nas.data.decoding import image_suffixes
from nas.data.faults import shown_list, shown_path
from nas.errors import DataError, DataFault

SPLIT_NAMES: Mapping[Split, tuple[str, ...]] = {
    Split.TRAIN: ("train", "training", "trn"),
    Split.VALIDATION: ("val", "valid", "validation", "dev"),
    Split.TEST: ("test", "testing", "tst"),
}
"""What a split's folder or file may be called, in letters of any case."""

SPLIT = "{split}"

_SYSTEM_NAMES = frozenset(
    {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found", "icon\r"}
)
_HINTS = {
    ".heic": "Pillow does not decode them: convert them to JPEG or PNG",
    ".heif": "Pillow does not decode them: convert them to JPEG or PNG",
    ".npy": "save them as PNG",
    ".npz": "save them as PNG",
    ".zip": "unpack them",
    ".gz": "unpack them",
    ".tar": "unpack them",
}
_MAX_KINDS = 6


@dataclass
class LeftOut:
    """What lies in a folder of data and is not read.

    Attributes:
        n_system: Hidden files and folders, and those that operating systems leave: counted, not named.
        kinds: By words that follow a number, the paths.
    """

    n_system: int = 0
    kinds: dict[str, list[Path]] = field(default_factory=dict)

    def add(self, kind: str, path: Path) -> None:
        """Add a file or folder that is left out; `kind` says why, in words that follow a number."""
        self.kinds.setdefault(kind, []).append(path)

    def line(self) -> str | None:
        """Return one line that tells of it all; `None` if nothing was left out."""
        parts = []
        for kind, paths in list(self.kinds.items())[:_MAX_KINDS]:
            names = shown_list(shown_path("/".join(path.parts[-2:])) for path in paths[:2])
            parts.append(f"{len(paths)} {kind} ({names}{', ...' if len(paths) > 2 else ''})")
        if n_more := sum(map(len, list(self.kinds.values())[_MAX_KINDS:])):
            parts.append(f"{n_more} others")
        if self.n_system:
            parts.append(f"{self.n_system} hidden or of the operating system")
        return f"Left out: {'; '.join(parts)}." if parts else None


def is_system(path: Path) -> bool:
    """Whether it is hidden, or something that an operating system puts into every folder."""
    return path.name.startswith(".") or path.name.lower() in _SYSTEM_NAMES


def visible(folder: Path, left_out: LeftOut | None = None) -> list[Path]:
    """Return what lies directly in `folder`, sorted by name, without hidden and system files, which are counted.

    Raises:
        DataError: If it cannot be listed.
    """
    try:
        entries = sorted(folder.iterdir())
    except NotADirectoryError:
        raise DataError([DataFault(shown_path(folder), "must be a folder, is a file")]) from None
    except FileNotFoundError:
        raise DataError([DataFault(shown_path(folder), "folder is missing")]) from None
    except OSError as error:
        raise DataError([DataFault(shown_path(folder), f"cannot be listed ({error.strerror})")]) from error
    shown = [path for path in entries if not is_system(path)]
    if left_out is not None:
        left_out.n_system += len(entries) - len(shown)
    return shown


def folders_in(folder: Path) -> list[Path]:
    """Return the visible folders directly in `folder`, sorted by name.

    Raises:
        DataError: If it cannot be listed.
    """
    return [path for path in visible(folder) if path.is_dir()]


def list_images(folder: Path, left_out: LeftOut | None = None) -> list[Path]:
    """Return the image files directly in `folder`, sorted by name; all else is added to `left_out`.

    Raises:
        DataError: If it cannot be listed.
    """
    left_out = LeftOut() if left_out is None else left_out
    images = []
    for path in visible(folder, left_out):
        suffix = path.suffix.lower()
        if path.is_dir():
            left_out.add("subfolders of a folder of images, not looked into", path)
        elif suffix in image_suffixes() and path.is_file():
            images.append(path)
        elif suffix in image_suffixes():
            left_out.add("called as images but no files", path)
        else:
            what = f"of suffix {suffix}" if suffix else "without a suffix"
            left_out.add(f"{what}, {_HINTS[suffix]}" if suffix in _HINTS else what, path)
    return images


def check_pattern(name: str, pattern: str, *, ends: str = "") -> str:
    """Return an option that says where files lie under the root, e.g. `{split}/images`.

    Raises:
        ValueError: If it leaves the root, or does not end as it must.
    """
    parts = pattern.split("/")
    if pattern.startswith("/") or ".." in parts or not pattern:
        raise ValueError(f"{name} must be a path under root, got {pattern!r}")
    if ends and ends not in parts[-1]:
        raise ValueError(f"{name} must hold {ends} in its last part, got {pattern!r}")
    if any("{" in part.replace(SPLIT, "").replace(ends, "") for part in parts):
        known = f"{SPLIT} and {ends}" if ends else SPLIT
        raise ValueError(f"{name} may hold {known} in braces, got {pattern!r}")
    return pattern


def find_folder(root: Path, pattern: str, split: Split) -> Path | None:
    """Return the folder of a split that `pattern` says, in letters of any case; `None` if there is none.

    Raises:
        DataError: If there are two.
    """
    found = [root]
    for part in pattern.split("/"):
        if part not in ("", "."):
            found = [child for folder in found for child in _children(folder, part, split)]
    if len(found) > 1:
        names = " and ".join(path.relative_to(root).as_posix() for path in found[:3])
        where = shown_path(root)
        raise DataError([DataFault(where, f"{names} are both for {split.value}", remedy="keep one of them")])
    return found[0] if found and found[0].is_dir() else None


def _children(folder: Path, part: str, split: Split) -> Iterator[Path]:
    if not folder.is_dir():
        return
    names = {part.replace(SPLIT, name).casefold() for name in SPLIT_NAMES[split]}
    matching = [child for child in folders_in(folder) if child.name.casefold() in names]
    exact = [child for child in matching if child.name == part]
    yield from exact or matching


def split_of(name: str) -> Split | None:
    """Return the split that a name such as `Train` or `validation-00000-of-00001` is of, if any."""
    word = name.casefold()
    for split, names in SPLIT_NAMES.items():
        if any(word == known or (word.startswith(known) and not word[len(known)].isalpha()) for known in names):
            return split
    return None


def require_root(root: Path) -> None:
    """Check that the root is a folder.

    Raises:
        DataError: If it is not.
    """
    if not root.is_dir():
        fault = "must be a folder, is a file" if root.exists() else "folder is missing"
        raise DataError([DataFault(f"data.root: {shown_path(root)}", fault)])
