"""The pages of the documentation that are made from the sources."""

import re

import pytest

from docs.configuration_reference import ReferencePage, reference_page
from docs.prepare import ROOT, claims
from nas.config import RunConfig
from nas.config.kinds import options_model
from nas.evaluation.training_config import TrainingConfig
from nas.registry import KINDS
from nas.values.budgets import Budget


@pytest.fixture(scope="module")
def page():
    return reference_page()


def part(page, anchor):
    """Return the part of the page under the heading of this anchor."""
    _, _, rest = page.partition(f"{{#{anchor}}}\n")
    assert rest, f"no heading has the anchor {anchor}"
    return re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]


def options(text):
    return set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE))


def test_every_section_is_a_row_of_the_first_table(page):
    assert options(page.partition("\n## ")[0]) == set(RunConfig.model_fields)


@pytest.mark.parametrize(("section", "kind"), [(section, kind) for section in KINDS for kind in KINDS[section].classes])
def test_every_option_of_every_kind_is_listed(page, section, kind):
    kinds = KINDS[section]
    expected = set(options_model(kinds.classes[kind], kinds.supplied).model_fields)
    assert options(part(page, f"{section}-{kind}")) == expected
    assert f"(#{section}-{kind})" in part(page, section)


@pytest.mark.parametrize(("anchor", "cls"), [("training", TrainingConfig), ("budget", Budget)])
def test_every_option_of_a_section_without_kinds_is_listed(page, anchor, cls):
    assert options(part(page, anchor)) == set(cls.__dataclass_fields__)


def test_every_option_has_a_description(page):
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 150
    assert not [row for row in rows if row.endswith("|  |")]


def test_every_link_within_the_page_has_its_heading(page):
    anchors = re.findall(r"\{#([\w-]+)\}$", page, re.MULTILINE)
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r"\(#([\w-]+)\)", page)) <= set(anchors)


@pytest.mark.parametrize(
    ("anchor", "row"),
    [
        ("budget", "| `hours` | a positive finite number, in h | `null` | Of wall-clock time; `null` for any. |"),
        ("training-stages", "| `epochs` | an integer of at least 1 | `5` | Passes over the training data. |"),
        ("teacher-recipe", "| `epochs` | an integer of at least 1 | `10` | Passes over the training data. |"),
        ("data-synthetic_faces", "| `n_train` | an integer of at least 1 | `1024` | Number of training examples. |"),
    ],
)
def test_a_row_tells_bounds_unit_default_and_description(page, anchor, row):
    assert row in part(page, anchor).splitlines()


def test_an_option_that_must_be_given_and_a_bar_in_its_text():
    schema = {"properties": {"a": {"type": "string", "description": "x | y"}}, "required": ["a"]}
    assert r"| `a` | text | (required) | x \| y |" in ReferencePage(schema).text()


def test_each_result_of_the_readme_has_a_command_that_makes_it():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = claims(readme)
    assert len(found) == len(re.findall(r"^\| \[\w+\]\(experiments/", readme, re.MULTILINE)) > 10
    for name, claim, command, where in found:
        assert f"python -m experiments.{name}" in command
        assert claim
        assert where
