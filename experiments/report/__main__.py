"""How long does the report of a large run take to write, to open, and to answer?"""

import contextlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from experiments.common import parser, report
from nas import api, assembly
from nas.config import load_config
from nas.store.run_folder import RunFolder
from nas.values.records import Candidate, Failure, Observation, RecordState

_CONFIG = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
_BATCH = 16
_N_TIMES = 5  # each interaction


def planted_run(path: Path, n_records: int) -> None:
    """Write a run of the quickstart's space with `n_records` records and values that look like a search's."""
    config = load_config(_CONFIG)
    rng = np.random.default_rng(0)
    space, seen = config.search_space.instance, set[str]()
    with RunFolder.write(path) as folder:
        folder.set_configuration(_CONFIG.read_text(encoding="utf-8"))
        assembly.prepare_folder(config, folder)
        store = folder.store
        store.set_fact("signature", {"in_channels": 3, "image_size": [64, 64], "n_classes": 8})
        store.set_fact("reference_point", {"mean_iou": 0.0, "latency_ms": 100.0, "n_params": 400_000.0})
        store._db.execute("BEGIN")  # one transaction for all: this is no search
        store._transaction = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        for batch in range(-(-n_records // _BATCH)):
            candidates: list[Candidate] = []
            while len(candidates) < min(_BATCH, n_records - batch * _BATCH):
                candidate = Candidate.create(space, space.sample(rng), 0)
                if candidate.id not in seen:
                    seen.add(candidate.id)
                    candidates.append(candidate)
            store.add_batch(candidates, batch=batch)
            progress = batch * _BATCH / n_records
            for candidate in candidates:
                _fill(store, candidate, rng, progress)
        store._db.execute("COMMIT")


def _fill(store: Any, candidate: Candidate, rng: np.random.Generator, progress: float) -> None:
    """Store readings and verdict of a candidate."""
    size = float(rng.lognormal(11.5, 0.6))
    if rng.random() < 0.01:
        failure = Failure("training", "the loss is not finite", "Traceback (most recent call last):\n  ...")
        store.add_verdict(candidate.id, RecordState.FAILED, failure=failure)
        return
    score = 0.75 - 0.5 * float(np.exp(-size / 6e4)) + 0.03 * progress + float(rng.normal(0, 0.04))
    values = {
        "n_params": float(round(size)),
        "n_macs": float(round(size * rng.uniform(40, 80))),
        "latency_ms": float(2 + size / 3e4 * rng.uniform(0.8, 1.3)),
        "mean_iou": min(0.98, max(0.02, score)),
        "task_loss[1]": 1.2,
        "task_loss[2]": 0.8,
    }
    store.add_observations([Observation(candidate.id, "planted", 1, name, value) for name, value in values.items()])
    store.add_verdict(candidate.id, RecordState.COMPLETE)


def interactions(page: Page) -> dict[str, float]:
    """Return by interaction the longest of a few times in ms, from the event to the next drawn frame."""
    timed = """async (act) => {
      const start = performance.now();
      await eval(act)();
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      return performance.now() - start;
    }"""
    acts = {
        "choose": "() => document.querySelectorAll('#table tr[data-i]')[{k}].click()",
        "sort": "() => document.querySelector('[data-sort=\"n_params\"]').click()",
        "pin": "() => document.querySelectorAll('[data-pin]')[{k}].click()",
        "filter": "() => {{ const one = document.querySelector('[data-filter=mean_iou][data-side=low]');"
        " one.value = 0.5 + {k} / 50; one.dispatchEvent(new Event('change')); }}",
        "axis": "() => {{ const one = document.getElementById('axis-x'); one.selectedIndex = {k};"
        " one.dispatchEvent(new Event('change')); }}",
    }
    found = {name: max(page.evaluate(timed, act.format(k=k)) for k in range(_N_TIMES)) for name, act in acts.items()}
    box = page.locator("#front").bounding_box()
    assert box is not None  # noqa: S101 - it is on the page
    hovers = []
    for k in range(_N_TIMES):
        start = time.perf_counter()
        page.mouse.move(box["x"] + 120 + 40 * k, box["y"] + 150)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        hovers.append(1000 * (time.perf_counter() - start))
    return {**found, "hover": max(hovers)}


def main() -> None:
    """Plant a run, write its report, open it, and time what people do."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--n-records", type=int, default=5000)
    arguments.add_argument("--chromium", default=shutil.which("chromium"), help="the browser's command")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "planted"
        planted_run(path, options.n_records)
        start = time.perf_counter()
        file = api.report(path)
        written_s = time.perf_counter() - start
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            start = time.perf_counter()
            page.goto(file.absolute().as_uri())
            page.wait_for_selector("body[data-ready=yes]", timeout=60_000)
            opened_s = time.perf_counter() - start
            times = interactions(page)
            browser.close()
        n_bytes = file.stat().st_size
    result = {
        "n_records": options.n_records,
        "n_bytes": n_bytes,
        "written_s": written_s,
        "interactive_s": opened_s,
        "longest_interaction_ms": times,
    }
    report(result, options)


if __name__ == "__main__":
    main()
