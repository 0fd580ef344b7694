"""The model card of a bundle: what the network is, how good, how costly, and how to use it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from nas.analysis.tables import format_value
from nas.exporters.bundle.predict import answer_of, overlay_of
from nas.exporters.formats import Exported
from nas.exporters.product import Product, scaled
from nas.values.metrics import split_key

_N_SHOWN = 6  # images of the validation split


def predictions(product: Product) -> Figure | None:
    """Return validation images beside what the network says of them; `None` where there are no images."""
    if product.data is None:
        return None
    images, targets = (part[:_N_SHOWN] for part in (product.data.validation.images, product.data.validation.targets))
    logits = product.run(scaled(images))
    rows = 3 if product.is_dense else 1
    figure = Figure(figsize=(2.0 * len(images), 2.0 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, len(images), squeeze=False)
    for column, (pixels, target) in enumerate(zip(images.numpy(), targets.numpy(), strict=True)):
        shown = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)).squeeze()).convert("RGB")
        answer = answer_of(logits[column], product.is_dense, shown.size)
        axes[0, column].imshow(shown)
        if product.is_dense:
            n_classes = len(product.class_names)
            axes[1, column].imshow(overlay_of(shown, np.where(target < n_classes, target, 0), n_classes))
            axes[2, column].imshow(overlay_of(shown, answer, n_classes))
        else:
            best = int(answer.argmax())
            axes[0, column].set_title(
                f"{product.class_names[best]}\n(is {product.class_names[int(target)]})", fontsize=8
            )
    for row, name in enumerate(("image", "truth", "network")[:rows]):
        axes[row, 0].set_ylabel(name)
    for one in axes.flat:
        one.set_xticks([])
        one.set_yticks([])
    return figure


def model_card(
    product: Product,
    title: str,
    facts: Mapping[str, Any],
    exported: Sequence[Exported],
    scores: Mapping[str, float],
    pictures: Sequence[str],
) -> str:
    """Return the card as Markdown."""
    parts = [
        f"# {title}",
        f"{product.origin.get('network', '')}. Weights of the {product.origin.get('training', '')} training.",
        _picture(pictures, "predictions.png", "validation images and what the network says of them"),
        "## How to use it",
        "    pip install numpy pillow onnxruntime\n    python predict.py IMAGE... [--raw DIR]",
        "or, in Python:",
        "\n".join(f"    {line}".rstrip() for line in exported[0].snippet.splitlines()),
        "## What goes in and what comes out",
        "\n".join(f"    {line.strip()}" for line in exported[0].contract.lines()),
        "## How good it is",
        *_scores(facts, scores),
        "## What it costs",
        "\n".join(_costs(facts)),
        "## The files",
        "\n".join(_files(exported)),
        _picture(pictures, "front.png", "the search's front, with this network marked"),
        _picture(pictures, "network.svg", "the architecture"),
        "## Limits",
        "\n".join(_limits(product, facts, scores)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _picture(pictures: Sequence[str], name: str, text: str) -> str:
    return f"![{text}]({name})" if name in pictures else ""


def _scores(facts: Mapping[str, Any], scores: Mapping[str, float]) -> Iterator[str]:
    whole = [metric for metric in scores if split_key(metric)[1] is None]
    tested, spread = facts.get("test_scores", {}), facts.get("test_spread", {})
    rows = ["| score | validation split | test split |", "|---|---|---|"]
    for metric in dict.fromkeys([*whole, *(m for m in tested if split_key(m)[1] is None)]):
        of_test = f"{tested[metric]:.4f}" if metric in tested else "not read"
        of_test += f" ± {spread[metric]:.2g}" if metric in spread else ""
        rows.append(f"| {metric} | {f'{scores[metric]:.4f}' if metric in scores else 'not at hand'} | {of_test} |")
    yield "\n".join(rows) if len(rows) > 2 else "The run's data was not at hand when this bundle was made."
    if by_class := {metric: value for metric, value in scores.items() if split_key(metric)[1] is not None}:
        names = dict.fromkeys(split_key(metric)[0] for metric in by_class)
        classes = dict.fromkeys(str(split_key(metric)[1]) for metric in by_class)
        table = [f"| class | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
        for one in classes:
            values = [f"{by_class[key]:.4f}" if (key := f"{name}[{one}]") in by_class else "" for name in names]
            table.append(f"| {one} | {' | '.join(values)} |")
        yield "On the validation split, by class:"
        yield "\n".join(table)


def _costs(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "| metric | value | measured on |"
    yield "|---|---|---|"
    for metric, reading in facts.get("metrics", {}).items():
        conditions = reading.get("conditions", {})
        if "processor" in conditions or not conditions.get("epochs"):
            place = ", ".join(str(conditions[key]) for key in ("processor", "runtime") if key in conditions)
            yield f"| {metric} | {format_value(metric, reading['value'])} | {place or 'counted'} |"


def _files(exported: Sequence[Exported]) -> Iterator[str]:
    yield "| file | format | compared with torch |"
    yield "|---|---|---|"
    for one in exported:
        compared = "; ".join(map(str, one.comparisons)) or "the weights themselves"
        first = one.paths[0]
        name = f"{first.parent.name}/{first.name}" if one.format == "safetensors" else first.name
        yield f"| {name} | {one.format} | {compared} |"
    for one in exported:
        yield from (f"\n{one.format}: {remark}" for remark in one.remarks)


def _limits(product: Product, facts: Mapping[str, Any], scores: Mapping[str, float]) -> Iterator[str]:
    height, width = product.signature.image_size
    yield f"- Trained on images of {height} x {width}; others are resized to that, whatever their shape."
    yield f"- Knows {len(product.class_names)} classes and answers with one of them, whatever an image shows."
    if not facts.get("test_scores"):
        yield "- Chosen by its validation scores, which therefore flatter it; `nas retrain` reads the test split."
    weak = sorted((value, metric) for metric, value in scores.items() if metric.startswith(("iou[", "f1[")))
    if weak:
        yield f"- Weakest class: {split_key(weak[0][1])[1]} ({split_key(weak[0][1])[0]} {weak[0][0]:.3f})."
    yield "- Latencies hold for the machine and the runtime that they were measured on."
