import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic import BaseModel, ValidationError, create_model

from nas.config.faults import Formatter, blamed, nearest
from nas.config.kinds import Section, options_model


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


@dataclass(frozen=True)
class Stage:
    epochs: int = 1
    train: Literal["decoder", "all"] = "all"

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {self.epochs}")
        if self.epochs > 100:
            raise ValueError("too long a stage")


@dataclass(frozen=True)
class Everything:
    needed: int
    integer: int = 1
    number: float = 2.0
    flag: bool = False
    text: str = "a"
    path: Path = Path("p")
    maybe: int | None = None
    size: int | tuple[int, int] = 32
    many: tuple[int, ...] = (1, 2)
    pair: tuple[float, float] = (0.0, 1.0)
    names: Sequence[str] | None = None
    listed: list[str] = field(default_factory=list)
    table: Mapping[str, float] = field(default_factory=dict)
    choice: Literal["kl", "mse", 3] = "kl"
    colour: Colour = Colour.RED
    stages: tuple[Stage, ...] = (Stage(),)
    first: Stage | None = None
    anything: Any = None
    clock: Callable[[], float] = lambda: 0.0
    even: Annotated[int, Ge(4), MultipleOf(2)] = 4
    eights: Annotated[int, MultipleOf(8)] = 8
    share: Annotated[float, Ge(0), Lt(1)] = 0.5
    part: Annotated[float, Gt(0), Le(1)] | None = None
    factor: Annotated[float, Gt(0)] = 1.0
    limit: Annotated[float, Ge(0)] = 1.0
    count: Annotated[int, Gt(0)] = 1


class Plain:
    def __init__(self, space: object, seed: int, *, width: int = 8, _hidden: int = 1) -> None:
        if width % 8:
            raise ValueError(f"width must be a multiple of 8, got {width}")


MODEL = create_model("file", __base__=Section, section=(options_model(Everything), ...))


def validated(values: Mapping[str, Any]) -> BaseModel:
    return MODEL.model_validate_json(json.dumps({"section": values}, default=str)).section


def read(**values: Any) -> dict[str, Any]:
    options = validated({"needed": 0, **values})
    return {name: getattr(options, name) for name in type(options).model_fields}


def faults_of(values: Mapping[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        validated(values)
    return [fault.text for fault in Formatter({"section": values}, MODEL.model_json_schema()).faults(caught.value)]


def test_defaults_are_those_of_the_constructor() -> None:
    options = read()
    assert "clock" not in options
    assert Everything(**options) == Everything(needed=0, clock=Everything.clock)


def test_what_the_program_supplies_is_no_option() -> None:
    model = options_model(Plain, frozenset({"space", "seed"}))
    assert set(model.model_fields) == {"width"}
    with pytest.raises(TypeError, match=r"Plain\.space: a configuration cannot give <class 'object'>"):
        options_model(Plain)


@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("number", 3, 3.0),
        ("path", "a/b", Path("a/b")),
        ("path", Path("a/b"), Path("a/b")),
        ("many", [3, 4], (3, 4)),
        ("many", [], ()),
        ("pair", [1, 2], (1.0, 2.0)),
        ("size", 5, 5),
        ("size", [5, 6], (5, 6)),
        ("maybe", None, None),
        ("names", ["a"], ["a"]),
        ("listed", ["a"], ["a"]),
        ("table", {"a": 1}, {"a": 1.0}),
        ("choice", 3, 3),
        ("colour", "green", Colour.GREEN),
        ("stages", [{"epochs": 3}, {"train": "decoder"}], (Stage(3), Stage(1, "decoder"))),
        ("first", {"epochs": 2}, Stage(2)),
        ("anything", {"a": [1]}, {"a": [1]}),
    ],
)
def test_values_taken(name: str, given: Any, taken: Any) -> None:
    value = read(**{name: given})[name]
    assert value == taken
    assert type(value) is type(taken)


@pytest.mark.parametrize(
    ("name", "given", "fault"),
    [
        ("integer", "abc", "section.integer must be an integer, got 'abc'."),
        ("integer", "3", "section.integer must be an integer, got '3'."),
        ("integer", 3.0, "section.integer must be an integer, got 3.0."),
        ("integer", True, "section.integer must be an integer, got true."),
        ("integer", None, "section.integer must be an integer, got null."),
        ("number", "1", "section.number must be a finite number, got '1'."),
        ("number", False, "section.number must be a finite number, got false."),
        ("number", float("nan"), "section.number must be a finite number, got nan."),
        ("number", float("inf"), "section.number must be a finite number, got inf."),
        ("flag", 1, "section.flag must be true or false, got 1."),
        ("flag", "yes", "section.flag must be true or false, got 'yes'."),
        ("text", 5, "section.text must be text, got 5."),
        ("path", 5, "section.path must be a path, got 5."),
        ("maybe", "x", "section.maybe must be an integer, got 'x'."),
        ("size", "x", "section.size must be an integer or a list of 2 integers, got 'x'."),
        ("size", [1], "section.size must be an integer or a list of 2 integers, got [1]."),
        ("many", 3, "section.many must be a list of integers, got 3."),
        ("many", "34", "section.many must be a list of integers, got '34'."),
        ("many", [1, "b"], "section.many[1] must be an integer, got 'b'."),
        ("pair", [1, 2, 3], "section.pair must be a list of 2 finite numbers, got [1, 2, 3]."),
        ("pair", [1], "section.pair must be a list of 2 finite numbers, got [1]."),
        ("names", "a", "section.names must be a list of texts, got 'a'."),
        ("listed", {"a": 1}, "section.listed must be a list of texts, got a mapping."),
        ("table", [1], "section.table must be a mapping, got [1]."),
        ("table", {"a": "b"}, "section.table.a must be a finite number, got 'b'."),
        ("choice", "klm", "section.choice must be one of 'kl', 'mse', 3, got 'klm'. Did you mean 'kl'?"),
        ("choice", True, "section.choice must be one of 'kl', 'mse', 3, got true."),
        ("choice", "z", "section.choice must be one of 'kl', 'mse', 3, got 'z'."),
        ("colour", "rot", "section.colour must be one of 'red', 'green', got 'rot'."),
        ("stages", {"epochs": 1}, "section.stages must be a list of mappings, got a mapping."),
        ("stages", [{}, {"epoch": 1}], "section.stages[1]: unknown key 'epoch'. Did you mean 'epochs'?"),
        ("stages", [{}, {"epochs": "x"}], "section.stages[1].epochs must be an integer, got 'x'."),
        ("stages", [{}, {"epochs": 0}], "section.stages[1].epochs must be at least 1, got 0."),
        ("stages", [{"epochs": 101}], "section.stages[0]: too long a stage."),
        ("stages", [3], "section.stages[0] must be a mapping, got 3."),
        ("even", 7, "section.even must be an even integer of at least 4, got 7."),
        ("even", "x", "section.even must be an even integer of at least 4, got 'x'."),
        ("eights", 9, "section.eights must be a multiple of 8, got 9."),
        ("share", 1, "section.share must be a number of at least 0 and less than 1, got 1."),
        ("part", 2, "section.part must be a number of more than 0 and at most 1, got 2."),
        ("factor", 0, "section.factor must be a positive finite number, got 0."),
        ("limit", -1, "section.limit must be a finite number of at least 0, got -1."),
        ("count", 0, "section.count must be a positive integer, got 0."),
        (
            "first",
            {"train": "al"},
            "section.first.train must be one of 'decoder', 'all', got 'al'. Did you mean 'all'?",
        ),
    ],
)
def test_values_refused(name: str, given: Any, fault: str) -> None:
    assert faults_of({"needed": 0, name: given}) == [fault]


def test_keys_refused() -> None:
    assert faults_of({}) == ["section: missing key 'needed'."]
    assert faults_of({"needde": 1}) == ["section: unknown key 'needde'. Did you mean 'needed'?"]
    assert faults_of({"needed": 1, "zzz": 1})[0].startswith("section: unknown key 'zzz'. Known: anything, choice,")


@pytest.mark.parametrize(
    ("message", "path", "text"),
    [
        ("width must be 8, got 7", ("a", "width"), "a.width must be 8, got 7."),
        ("widths differ.", ("a",), "a: widths differ."),
        ("must be a prime, got 4", ("a",), "a must be a prime, got 4."),
        ("", ("a",), "a: the options were refused."),
    ],
)
def test_a_constructor_blames_its_option(message: str, path: tuple[str, ...], text: str) -> None:
    fault = blamed(("a",), message, ["width"])
    assert (fault.path, fault.text) == (path, text)


def test_nearest() -> None:
    assert nearest("latencyms", ["n_params", "latency_ms"]) == " Did you mean 'latency_ms'?"
    assert nearest("x", ["beta", "alpha"]) == " Known: alpha, beta."
    assert nearest("x", []) == " There are none."
    assert nearest("!", [f"k{i:02}" for i in range(20)]).endswith("k11, ....")
