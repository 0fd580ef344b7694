"""What is doubtful about data, though no fault: counted by kind, so that a person reads a line for each."""

from pathlib import Path

from nas.data.faults import shown_path


class NoteList:
    """Collects notes on files.

    Args:
        noun: What the files are, in the plural, with a capital.
    """

    def __init__(self, noun: str) -> None:
        self._noun = noun
        self._files: dict[str, list[str]] = {}

    def add(self, where: Path | str, note: str) -> None:
        """Add what is doubtful about a file, in words that follow "images that"."""
        self._files.setdefault(note, []).append(shown_path(where))

    def lines(self) -> tuple[str, ...]:
        """Return a line for each kind of note."""
        return tuple(
            f"{self._noun} that {note}: {len(files)} (first: {files[0]})." for note, files in self._files.items()
        )
