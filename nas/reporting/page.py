"""Writes the report: one file without links, its data and scripts inside."""

import base64
import gzip
import html
import json
import shlex
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from nas.analysis.comparison import Comparison
from nas.doctor.diagnoses import Evidence
from nas.errors import InputError
from nas.files import write_text
from nas.reporting.contents import contents
from nas.reporting.details import details
from nas.store.run_folder import RunFolder
from nas.version import VERSION

_SCRIPTS = ("data.js", "charts.js", "table.js", "detail.js", "panels.js", "main.js")
_COMPARING = ("data.js", "charts.js", "compare.js")


def write_report(
    run_dir: Path, path: Path | None = None, *, trust_code: bool = False, refresh_s: float | None = None
) -> Path:
    """Write a run's report as one HTML file, and return its path; the run may be running meanwhile.

    Args:
        run_dir: The run's folder.
        path: The file; by default `report.html` in that folder.
        trust_code: Whether to import Python code that the run's configuration names, for drawings and costs.
        refresh_s: After how many seconds an open page reads the file again; `None` for never.

    Raises:
        InputError: If there is no such run, or the file cannot be written.
    """
    with RunFolder.read(run_dir) as folder:
        evidence = Evidence.load(run_dir)
        values = contents(folder, evidence)
    values["details"] = details(evidence.run, trust_code=trust_code)
    values["quoted_path"] = shlex.quote(str(run_dir))
    values["refresh_s"] = refresh_s
    return _write(
        path or run_dir / "report.html", _page("report_body.html", f"{values['name']} - report", values, _SCRIPTS)
    )


def write_comparison(comparison: Comparison, path: Path) -> Path:
    """Write runs side by side as one HTML file.

    Raises:
        InputError: If the file cannot be written.
    """
    return _write(path, _page("compare_body.html", "Runs compared", comparison.to_plain(), _COMPARING))


def _write(path: Path, text: str) -> Path:
    try:
        write_text(path, text)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}") from error
    return path


def _page(body: str, title: str, values: dict[str, Any], scripts: Sequence[str]) -> str:
    """Return a page; whatever the data holds is text there: it is packed, and scripts write it as text."""
    packed = gzip.compress(json.dumps(values, separators=(",", ":")).encode(), compresslevel=6, mtime=0)
    static = resources.files("nas.reporting") / "static"
    now = time.strftime("%Y-%m-%d %H:%M")
    return Template((static / "shell.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        body=(static / body).read_text(encoding="utf-8"),
        style=(static / "page.css").read_text(encoding="utf-8"),
        data=base64.b64encode(packed).decode(),
        library=(static / "echarts.min.js").read_text(encoding="utf-8"),
        script="\n".join((static / name).read_text(encoding="utf-8") for name in scripts),
        footer=html.escape(f"Written by pareto-nas {VERSION}, {now}. Charts: Apache ECharts 5.6.0, Apache-2.0."),
    )
