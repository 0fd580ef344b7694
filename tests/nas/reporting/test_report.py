"""The report in a browser: what people see, click and press; nothing else is loaded, and texts are texts."""

import csv
import dataclasses
import io
import shutil
from pathlib import Path

import pytest

import nas
from nas import api
from nas.store.run_store import RunStore
from nas.values.records import Failure, RecordState

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
sync_api = pytest.importorskip("playwright.sync_api")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
HOSTILE = "<img src=x onerror=\"document.title='broken'\"></script><script>document.title='broken'</script>"


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Return a function that opens a report and fails the test where the page loads or complains."""
    pages = []

    def open_report(file: Path, **context):
        page = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context}).new_page()
        problems, requests = [], []
        page.on(
            "console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.absolute().as_uri())
        page.wait_for_selector("body[data-complete=yes]")
        pages.append((page, problems, requests, file.absolute().as_uri()))
        return page

    yield open_report
    for page, problems, requests, uri in pages:
        page.context.close()
        assert problems == []
        assert {url for url in requests if not url.startswith("data:")} == {uri}


@pytest.fixture(scope="module")
def written(tiny_run, tmp_path_factory):
    """The report of the finished run."""
    return api.report(tiny_run, tmp_path_factory.mktemp("reports") / "report.html")


@pytest.fixture
def page(opened, written):
    return opened(written)


def caption(page):
    return page.inner_text("#table caption")


def pixel_of(page, candidate):
    """Return where a candidate lies in the chart, in pixels of the page."""
    box = page.locator("#front").bounding_box()
    x, y = page.evaluate(
        """(id) => {
          const i = page.data.candidates.index.get(id), { chart, x, y } = frontChart;
          return chart.convertToPixel({ gridIndex: 0 }, [valueOf(i, x), valueOf(i, y)]);
        }""",
        candidate,
    )
    return box["x"] + x, box["y"] + y


@in_browser
def test_the_page_says_what_was_found(page, tiny_run):
    run = nas.load_run(tiny_run)
    assert page.inner_text("h1") == "tiny"
    assert f"{len(run.front)} of {len(run.records)} networks on the front" in page.inner_text("#state")
    assert page.locator("#table tbody tr").count() == len(run.records)
    assert page.locator("#table tr.front").count() == len(run.front)
    assert page.inner_text("#detail h3") == run.knee.id  # something to see at once
    assert page.locator("#progress .card").count() >= 3
    assert page.locator("#progress .card", has_text="How busy everybody was").count() == 1
    assert "worker 1" in page.evaluate("Object.keys(page.data.progress.busy_s)")
    assert page.locator("#trust .card").count() >= 1


@in_browser
@pytest.mark.parametrize("width", [390, 1280, 1900])
def test_every_chart_stays_within_its_card(opened, written, width):
    page = opened(written, viewport={"width": width, "height": 900})
    page.wait_for_function("charts.every((chart) => chart.getWidth() === chart.getDom().clientWidth)")
    outside = """charts.filter((chart) => {
      const card = chart.getDom().closest(".card, section"), canvas = chart.getDom().querySelector("canvas");
      return canvas.getBoundingClientRect().right > card.getBoundingClientRect().right + 1;
    }).length"""
    assert page.evaluate("charts.length") >= 5
    assert page.evaluate(outside) == 0


@in_browser
def test_a_click_shows_drawing_costs_and_commands(page, tiny_run):
    best = nas.load_run(tiny_run).front[0]
    page.mouse.click(*pixel_of(page, best.id))
    assert page.inner_text("#detail h3") == best.id
    assert best.candidate.description in page.inner_text("#detail")
    assert page.locator("#detail img").evaluate("(image) => image.complete && image.naturalWidth > 100")
    assert page.locator("#detail table").nth(1).locator("tbody tr").count() >= 3
    commands = page.locator("#detail .command code").all_inner_texts()
    assert f"nas retrain {tiny_run} --candidate {best.id} --epochs 30" in commands
    assert f"nas export {tiny_run} --candidate {best.id}" in commands
    assert page.locator("#rings .ring.chosen").count() == 1
    page.locator("#detail .command button").first.click()
    page.wait_for_selector("#detail .command button:text('copied')")


@in_browser
def test_hovering_shows_values_with_their_spread(page, tiny_run):
    best = nas.load_run(tiny_run).front[0]
    text = page.evaluate("(id) => pointText(page.data.candidates.index.get(id))", best.id)
    assert text.startswith(best.id)
    assert "accuracy 0." in text
    assert " ms (" in text  # the range of its rounds
    x, y = pixel_of(page, best.id)
    page.mouse.move(x - 3, y)
    page.mouse.move(x, y)
    page.wait_for_function(
        """() => frontChart.chart.getZr().storage.getDisplayList(true)
          .some((one) => String((one.style || {}).text || "").includes("accuracy 0."))"""
    )


@in_browser
def test_brushing_filters_table_and_parallel_coordinates_alike(page, tiny_run):
    n = len(nas.load_run(tiny_run).records)
    x, y = pixel_of(page, nas.load_run(tiny_run).knee.id)
    page.evaluate(
        """() => frontChart.chart.dispatchAction(
          { type: "takeGlobalCursor", key: "brush", brushOption: { brushType: "rect" } })"""
    )
    page.mouse.move(x + 40, y + 60)  # the knee may lie at the upper edge of the grid
    page.mouse.down()
    page.mouse.move(x - 40, y - 5, steps=5)
    page.mouse.up()
    page.wait_for_function(f"() => !document.querySelector('#table caption').textContent.startsWith('{n} of')")
    n_left = int(caption(page).split()[0])
    assert 0 < n_left < n
    page.wait_for_function(
        "(n) => document.getElementById('parallel-note').textContent.startsWith(n + ' candidates')", arg=n_left
    )
    page.click("#clear")
    page.wait_for_function(f"() => document.querySelector('#table caption').textContent.startsWith('{n} of')")


@in_browser
def test_dragging_along_an_axis_of_the_parallel_coordinates_filters(page, tiny_run):
    n = len(nas.load_run(tiny_run).records)
    box = page.locator("#parallel").bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 140, steps=8)
    page.mouse.up()
    page.wait_for_function(f"() => !document.querySelector('#table caption').textContent.startsWith('{n} of')")
    assert int(caption(page).split()[0]) < n


@in_browser
def test_sorting_pinning_and_saving(page, tiny_run):
    run = nas.load_run(tiny_run)
    page.click("[data-sort=n_params]")
    sizes = [int(text.replace(",", "")) for text in page.locator("#table tbody tr td:nth-child(5)").all_inner_texts()]
    assert sizes == sorted(sizes)
    page.click("[data-sort=n_params]")
    last = page.locator("#table tbody tr").last
    pinned = last.locator("td").first.inner_text().split()[1]
    last.locator("[data-pin]").click()
    assert pinned in page.locator("#table tbody tr").first.inner_text()
    with page.expect_download() as download:
        page.click("#save")
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert download.value.suggested_filename == "candidates.csv"
    assert len(rows) == len(run.records)
    assert rows[0]["id"] == pinned
    by_id = {row["id"]: row for row in rows}
    assert float(by_id[run.knee.id]["accuracy"]) == run.knee.metrics["accuracy"]


@in_browser
def test_the_keyboard_is_enough(page, tiny_run):
    page.locator("[data-filter=latency_ms][data-side=low]").focus()
    page.keyboard.type("0")
    page.keyboard.press("Tab")
    page.focus("#table tbody tr")
    page.keyboard.press("ArrowDown")
    row = page.evaluate("() => document.activeElement.querySelector('td').textContent")
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "detail"
    assert page.inner_text("#detail h3") in row
    page.focus("[data-sort=batch]")
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.dataset.sort") == "batch"
    page.focus("[data-pin]")
    page.keyboard.press("Space")
    assert page.locator("[data-pin][aria-pressed=true]").count() == 1
    page.focus("#axis-x")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("() => frontChart.x") == page.input_value("#axis-x")


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_screen_in_light_and_dark(opened, written, scheme, width):
    page = opened(written, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 24, 29)")


@in_browser
def test_texts_with_html_are_shown_as_text(opened, tiny_run, tmp_path):
    run = shutil.copytree(tiny_run.parent, tmp_path / "runs") / tiny_run.name
    with RunStore(run / "store.sqlite") as store:
        store.set_fact("name", HOSTILE)
        candidate = dataclasses.replace(store.records()[0].candidate, id="bad0", description=HOSTILE)
        store.add_batch([candidate], batch=9)
        store.add_verdict(candidate.id, RecordState.FAILED, failure=Failure("training", HOSTILE, HOSTILE))
    page = opened(api.report(run))
    assert page.title() != "broken"
    assert "onerror" in page.inner_text("h1")
    assert "onerror" in page.inner_text("#failures")
    page.evaluate("() => choose(page.data.candidates.index.get('bad0'))")
    assert "onerror" in page.inner_text("#detail")
    assert page.locator("img[src=x]").count() == 0


@in_browser
def test_a_run_without_candidates_has_a_page(opened, tiny_run, tmp_path):
    run = tmp_path / "empty"
    shutil.copytree(tiny_run, run)
    with RunStore(run / "store.sqlite") as store:
        store._db.executescript(
            "DELETE FROM verdicts; DELETE FROM observations; DELETE FROM test_readings; DELETE FROM asks"
        )
    assert "No candidate has been measured yet." in opened(api.report(run)).inner_text("main")


@in_browser
def test_a_table_of_known_results_has_a_page_without_drawings(opened, tmp_path):
    config = {
        "name": "table", "tensorboard": False, "controller": {"kind": "random", "n_candidates": 40},
        "search_space": {"kind": "tabular", "path": "configs/toy_table.npz", "costs": ["n_params", "latency_ms"]},
        "objectives": [{"metric": "accuracy", "direction": "maximize"}, {"metric": "latency_ms"}],
    }  # fmt: skip
    nas.run_search(config, tmp_path / "table")
    page = opened(api.report(tmp_path / "table"))
    assert page.locator("#detail img").count() == 0
    assert page.locator("#detail .command").count() == 0
    assert page.locator("#diversity .card").count() >= 2


@in_browser
def test_compared_runs_have_a_page(browser, tiny_run, tmp_path):
    file = tmp_path / "compare.html"
    api.compare([tiny_run, tiny_run], by="controller", path=file)
    page, problems = browser.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(file.absolute().as_uri())
    page.wait_for_selector("body[data-complete=yes]")
    assert page.locator("#groups tbody tr").count() == 1
    assert page.locator("#fronts canvas").count() >= 1
    assert problems == []
    page.close()
