"""Drawings of networks, and their costs by module: as many as the time and the size of a page allow."""

import time
from collections.abc import Sequence
from typing import Any

from nas import assembly
from nas.config import RunConfig, load_config
from nas.errors import NasError
from nas.profiling import profile as profiling
from nas.profiling.profile import Profile
from nas.store.run import Run
from nas.store.run_folder import RunFolder
from nas.values.records import Record

_DRAWING_S, _COSTS_S = 2.0, 3.0
_MAX_DRAWN_BYTES = 24 << 20  # packed, a twentieth of it


def details(run: Run, *, trust_code: bool = False) -> dict[str, dict[str, Any]]:
    """Return by candidate its drawing, SVG, and costs by module: name, parameters, multiply-adds, output.

    The front comes first, then references, then the others; what the time does not suffice for is left out.

    Args:
        run: The run.
        trust_code: Whether to import Python code that its configuration names.
    """
    if not run.builds_networks:
        return {}
    try:
        config = load_config(run.path / "config.yaml", trust_code=trust_code)
    except NasError:
        return {}  # a space of the user's that is not trusted, or not here
    front = {record.id for record in run.front}
    first = [*run.front, *run.references]
    others = [record for record in run.records if record.id not in front]
    found: dict[str, dict[str, Any]] = {}
    _add_drawings(found, config, [*first, *others])
    with RunFolder.read(run.path) as folder:
        _add_costs(found, config, folder, first)
    return found


def _add_drawings(found: dict[str, dict[str, Any]], config: RunConfig, records: Sequence[Record]) -> None:
    start, n_bytes = time.perf_counter(), 0
    for record in records:
        if time.perf_counter() - start > _DRAWING_S or n_bytes > _MAX_DRAWN_BYTES:
            return
        if drawing := assembly.drawing_of(config, record.candidate):
            n_bytes += len(drawing)
            found.setdefault(record.id, {})["svg"] = drawing


def _add_costs(
    found: dict[str, dict[str, Any]], config: RunConfig, folder: RunFolder, records: Sequence[Record]
) -> None:
    start = time.perf_counter()
    for record in records:
        if time.perf_counter() - start > _COSTS_S:
            return
        try:
            target = profiling.record_target(config, folder, record)
            found.setdefault(record.id, {})["modules"] = _modules(profiling.profile(target, {}, timed=False, depth=2))
        except NasError:
            continue


def _modules(costs: Profile) -> list[list[Any]]:
    """Return a row for each module."""
    return [
        [row.module or "whole", row.n_params, row.n_macs, "x".join(map(str, row.output_shape))] for row in costs.modules
    ]
