"""Commands `nas data ...`: prepare."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from nas.errors import InputError


def prepare(
    layout: Annotated[str, typer.Argument(metavar="NAME", help="The data set: helen, celebamask_hq, eg1800.")],
    source: Annotated[Path, typer.Option(help="The folder as its authors publish it.")],
    output: Annotated[Path, typer.Option(help="The folder to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a folder prepared before.")] = False,
) -> None:
    """Convert a published data set to the folders that image_mask_folder reads."""
    from nas.data.preparation import prepare as prepare_layout
    from nas.data.published_layouts import PUBLISHED_LAYOUTS

    if layout not in PUBLISHED_LAYOUTS:
        raise InputError(f"{layout!r} is no data set that can be prepared; known: {', '.join(PUBLISHED_LAYOUTS)}")
    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(layout, total=None)
        prepared = prepare_layout(
            layout,
            source,
            output,
            overwrite=overwrite,
            on_progress=lambda n_done, n_all: progress.update(bar, completed=n_done, total=n_all),
        )
    counts = ", ".join(f"{n} {split}" for split, n in prepared.n_pairs.items())
    print(f"{prepared.path}: {counts}. For the configuration:\n\n{prepared.sections}", end="")
