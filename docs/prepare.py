"""Gathers the pages of the documentation in build/docs: those written by hand, and those made from the sources.

`make docs` runs it before the site is built. Made from the sources are the API reference (a page for each room), the
reference of the configuration, a page for each experiment, and the promises and results as the README states them.
"""

import json
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the pages are of this checkout, whatever is installed

from docs.configuration_reference import reference_page  # noqa: E402

PAGES = ROOT / "build" / "docs"
PACKAGES = ("nas", "search_spaces", "latency")
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#)([^)\s]+)\)")


def rooms() -> dict[str, list[str]]:
    """Return the public modules by room: a folder of a package, or the package for its loose modules."""
    found: dict[str, list[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if parts[-1] not in ("__init__", "__main__"):
                found.setdefault(".".join(parts[:2]) if len(parts) > 2 else package, []).append(".".join(parts))
    return found


def summary(room: str) -> str:
    """Return the first line of a room's docstring."""
    text = (ROOT / room.replace(".", "/") / "__init__.py").read_text(encoding="utf-8")
    return text.removeprefix('"""').partition('"""')[0].partition("\n")[0]


def write_api(folder: Path) -> None:
    """Write a page for each room, and one that lists them."""
    folder.mkdir(parents=True)
    rows = ["# API reference", "", "| room | what it holds |", "|---|---|"]
    for room, modules in rooms().items():
        content = "\n".join(f"::: {module}\n" for module in modules)
        (folder / f"{room}.md").write_text(f"# {room}\n\n{summary(room)}\n\n{content}", encoding="utf-8")
        rows.append(f"| [{room}]({room}.md) | {summary(room)} |")
    (folder / "index.md").write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_experiments(folder: Path) -> None:
    """Write each experiment's README; its links to files beside it become plain names, since those are no pages."""
    folder.mkdir()
    for readme in sorted((ROOT / "experiments").glob("*/README.md")):
        text = _LINK.sub(r"`\1`", readme.read_text(encoding="utf-8"))
        (folder / f"{readme.parent.name}.md").write_text(text, encoding="utf-8")


def write_readme_sections(pages: Path) -> None:
    """Put the README's promises and results where the pages of these names ask for them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = text.replace("](docs/", "](").replace("/README.md)", ".md)")
    sections = {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in text.split("\n## ")}
    for page, title in (("promises.md", "What it promises"), ("results.md", "Results")):
        path = pages / page
        path.write_text(path.read_text(encoding="utf-8").replace("{README}", sections[title]), encoding="utf-8")


def claims(readme: str) -> list[tuple[str, str, str, str]]:
    """Return experiment, claim, command and machine of each row of the README's results."""
    found = []
    for name, claim in re.findall(
        r"^\| \[(\w+)\]\(experiments/\1/README.md\) \| .*? \| (.*) \|$", readme, re.MULTILINE
    ):
        folder = ROOT / "experiments" / name
        page = (folder / "README.md").read_text(encoding="utf-8")
        command = re.search(r"^ +((?:\w+=\S+ )?python -m experiments\.(?:[^\\\n]*\\\n)*[^#\n]*)", page, re.MULTILINE)
        results = folder / "results.json"
        machine = json.loads(results.read_text(encoding="utf-8")).get("machine", {}) if results.exists() else {}
        words = [machine.get("accelerator") or machine.get("processor"), machine.get("date")]
        where = ", ".join(filter(None, words)) or "see its page"
        found.append((name, claim, " ".join(command[1].replace("\\\n", " ").split()) if command else "", where))
    return found


def write_claims(page: Path) -> None:
    """Put the table of claims where the page asks for it."""
    rows = ["| claim | command | machine, date |", "|---|---|---|"]
    for name, claim, command, where in claims((ROOT / "README.md").read_text(encoding="utf-8")):
        text = _LINK.sub(r"\1", claim)
        rows.append(f"| [{name}](experiments/{name}.md): {text} | `{command}` | {where} |")
    page.write_text(page.read_text(encoding="utf-8").replace("{CLAIMS}", "\n".join(rows)), encoding="utf-8")


def main() -> None:
    """Make all pages anew."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(ROOT / "docs", PAGES, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    write_api(PAGES / "reference" / "api")
    (PAGES / "reference" / "configuration.md").write_text(reference_page(), encoding="utf-8")
    write_experiments(PAGES / "experiments")
    write_readme_sections(PAGES)
    write_claims(PAGES / "believe.md")


if __name__ == "__main__":
    main()
