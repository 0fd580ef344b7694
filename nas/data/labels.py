"""From the labels in a file, numbers or texts, to the indices of classes."""

from collections import Counter
from collections.abc import Sequence

from nas.data.faults import shown_list, shown_path
from nas.data.parquet_columns import Labels, shown_labels
from nas.errors import DataError, DataFault

_MAX_LISTED = 20


def infer_classes(labels: Labels, where: str) -> tuple[str, ...]:
    """Return the names of the classes that training labels show, where nothing else tells them.

    Texts are names, in alphabetical order; numbers must be 0, 1, ... without a gap.

    Raises:
        DataError: If they are fewer than two classes, or numbers with a gap.
    """
    found: Labels = sorted(set(labels))  # type: ignore[assignment, type-var]  # of one type
    if len(found) < 2:
        shown = f"{len(found)} ({shown_list(found)})" if found else "no label"
        raise DataError([DataFault(where, f"must hold 2 classes or more, has {shown}")])
    if isinstance(found[0], str):
        return tuple(str(name) for name in found)
    numbers = [int(value) for value in found]
    if numbers == list(range(len(numbers))):
        return tuple(map(str, numbers))
    counts = Counter(labels)
    rare = [f"{value} in {counts[value]} row{'s' if counts[value] > 1 else ''}" for value in numbers[-2:]]
    remedy = "give data.class_names, or correct the labels"
    if len(numbers) <= _MAX_LISTED:
        remedy = f"if each is a class, write `data: {{label_values: {shown_labels(numbers)}}}`; else correct the labels"
    fault = f"must hold the labels 0, 1, ... without a gap, holds {shown_list(numbers)}; {', '.join(rare)}"
    raise DataError([DataFault(where, fault, remedy=remedy)])


def label_indices(
    labels: Labels, class_names: Sequence[str], values: Sequence[int | str] | None, where: str
) -> list[int]:
    """Return the index of each label's class.

    Args:
        labels: As the file holds them.
        class_names: In order of their index; texts are looked up among them.
        values: The label of each class; `None` where numbers are indices and texts are names.
        where: The file, for faults.

    Raises:
        DataError: Naming the labels that are no class's.
    """
    is_text = bool(labels) and isinstance(labels[0], str)
    known: Sequence[int | str] = values if values is not None else class_names if is_text else range(len(class_names))
    index_of = {value: index for index, value in enumerate(known)}
    unknown = sorted({label for label in labels if label not in index_of})
    if not unknown:
        return [index_of[label] for label in labels]
    n_rows = sum(label not in index_of for label in labels)
    must = f"0 .. {len(class_names) - 1}" if values is None and not is_text else shown_list(known)
    remedy = "name every class in data.class_names, or leave these rows out"
    if values is not None:
        remedy = "add them to data.label_values, or leave these rows out"
    elif unknown == [-1]:
        remedy = "-1 stands for rows without a label: leave them out"
    shown = shown_path(shown_list(unknown))
    who = "1 row holds" if n_rows == 1 else f"{n_rows} rows hold"
    raise DataError([DataFault(where, f"labels must be {must}, {who} {shown}", remedy=remedy)])
