"""`nas init`: from a folder of data to a configuration that runs."""

from pathlib import Path
from typing import Annotated

import typer


def init(
    data: Annotated[
        Path, typer.Option(metavar="FOLDER|FILE", help="Images with masks, folders of classes, or Parquet.")
    ],
    device: Annotated[
        str, typer.Option(metavar="KIND", help="Where the network is to run: torch_cpu, torch_cuda, onnxruntime.")
    ] = "torch_cpu",
    output: Annotated[Path | None, typer.Option(help="The file to write. Default: NAME.yaml here.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Look at your data, and write a commented configuration that runs."""
    from nas import assembly
    from nas.cli.starter import starter_config
    from nas.config import load_config
    from nas.config.faults import nearest
    from nas.data.inspection import inspect
    from nas.errors import ConfigurationError, InputError
    from nas.files import atomic_path
    from nas.registry import KINDS

    kinds = KINDS["devices"].classes
    if device not in kinds:
        raise InputError(f"--device: unknown kind {device!r}.{nearest(device, kinds)}")
    resolved = data.resolve()
    name = resolved.stem if resolved.is_file() else resolved.name
    target = output if output is not None else Path(f"{name}.yaml")
    if target.exists() and not overwrite:
        raise InputError(f"--output: {target} is there already; name another file, or pass --overwrite")
    text = starter_config(inspect(data), name, device, str(resolved))
    try:
        with atomic_path(target) as unchecked:
            unchecked.write_text(text, encoding="utf-8")
            assembly.check_data(load_config(unchecked), print)
    except ConfigurationError as error:
        raise InputError(f"--device: {device} takes options of its own; write them into a file:\n{error}") from error
    except OSError as error:
        raise InputError(f"--output: {target} cannot be written: {error}") from error
    print(f"{target}: written. Look through it, then: nas search {target}")
