"""What YAML 1.1 reads otherwise than it looks is refused, with what to write."""

from pathlib import Path

import pytest

from nas.config.yaml_source import YamlSource
from nas.config.yaml_surprises import scalar_surprise
from nas.errors import ConfigurationError


def faults_of(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        YamlSource.read(tmp_path / "x.yaml")
    return [fault.removeprefix(f"{tmp_path}/") for fault in caught.value.faults]


def data_of(tmp_path: Path, text: str) -> dict[str, object]:
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    return YamlSource.read(tmp_path / "x.yaml").data


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ("1:30", "1:30 is read as a number to base 60: write 1.5, or '1:30' for the text."),
        ("-0:15", "-0:15 is read as a number to base 60: write -0.25, or '-0:15' for the text."),
        ("8:30:36", "8:30:36 is read as a number to base 60: write 8.51, or '8:30:36' for the text."),
        ("1:30.5", "1:30.5 is read as a number to base 60: write 1.50833, or '1:30.5' for the text."),
        ("010", "010 starts with 0, which means base 8: write 10, or '010' for the text."),
        ("-007", "-007 starts with 0, which means base 8: write -7, or '-007' for the text."),
        ("08", "08 starts with 0, which means base 8: write 8, or '08' for the text."),
        ("2024-05-01", "2024-05-01 is read as a date: write '2024-05-01' for the text."),
        ("0,001", "0,001 is no number: write 0.001 with a point, or '0,001' for the text."),
        ("1.000,5", "1.000,5 is no number: write 1000.5 with a point, or '1.000,5' for the text."),
        ("yes", "yes is read as true: write true, or 'yes' for the text."),
        ("No", "No is read as false: write false, or 'No' for the text."),
        ("ON", "ON is read as true: write true, or 'ON' for the text."),
        ("1\u00a0000", "'1\\xa0000' holds a non-breaking space (U+00A0): write a blank, or quote the text."),
    ],
)
def test_a_surprise_says_what_to_write(tmp_path, value, advice):
    assert faults_of(tmp_path, f"name: a\nkey: {value}\n") == [f"x.yaml:2: {advice}"]


def test_each_item_of_a_list_is_told(tmp_path):
    faults = faults_of(tmp_path, "data:\n  class_names: [no, yes, on]\n")
    assert [fault.split(" is ")[0] for fault in faults] == ["x.yaml:2: no", "x.yaml:2: on", "x.yaml:2: yes"]


def test_quotes_make_text_of_it(tmp_path):
    text = "a: ['no', \"1:30\", '010', '2024-05-01', '0,001', 'x\u00a0y']\n"
    assert data_of(tmp_path, text) == {"a": ["no", "1:30", "010", "2024-05-01", "0,001", "x\u00a0y"]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("0", 0),
        ("0.5", 0.5),
        ("-3", -3),
        ("1e-3", 0.001),
        ("20_000", 20000),
        ("a:b", "a:b"),
        ("~", None),
    ],
)
def test_plain_values_are_read_as_ever(tmp_path, text, value):
    assert data_of(tmp_path, f"key: {text}\n") == {"key": value}


def test_a_lookalike_is_told_where_it_makes_yaml_of_no_sense(tmp_path):
    expected = "x.yaml:2: 'key:\\xa01' holds a non-breaking space (U+00A0): write a blank, or quote the text."
    assert faults_of(tmp_path, "name: a\nkey:\u00a01\nother: 2  # and\u00a0here none\n") == [expected]
    assert data_of(tmp_path, "name: a  # with\u00a0one in a comment\n") == {"name": "a"}


def test_a_key_is_told_once(tmp_path):
    assert faults_of(tmp_path, "on: 1\n010: 2\n") == [
        "x.yaml:1: a key must be text, got on; quote it.",
        "x.yaml:2: a key must be text, got 010; quote it.",
    ]


def test_overrides_are_read_alike():
    source = YamlSource.from_mapping({"budget": {}})
    with pytest.raises(ConfigurationError, match=r"--set budget.hours=1:30: the value is wrong: 1:30 is read as"):
        source.with_overrides(["budget.hours=1:30"])


def test_anchors_are_defined_under_keys_of_the_users_own(tmp_path):
    text = "x-recipe: &short {epochs: 2}\nteacher:\n  recipe: {<<: *short, batch_size: 8}\n"
    assert data_of(tmp_path, text) == {"teacher": {"recipe": {"epochs": 2, "batch_size": 8}}}
    assert YamlSource.from_mapping({"x-a": 1, "name": "b"}).data == {"name": "b"}


def test_what_stands_under_such_a_key_is_checked_all_the_same(tmp_path):
    assert faults_of(tmp_path, "x-a: 010\n") == [
        "x.yaml:1: 010 starts with 0, which means base 8: write 10, or '010' for the text."
    ]


def test_text_that_only_holds_such_a_value_is_none():
    assert scalar_surprise("yes_or_no", "tag:yaml.org,2002:str") is None
    assert scalar_surprise("a,5", "tag:yaml.org,2002:str") is None
