from pathlib import Path

import pytest

from nas.config.yaml_source import Fault, YamlSource, key_text, to_yaml_text
from nas.errors import ConfigurationError


def read(tmp_path: Path, text: str | bytes) -> YamlSource:
    path = tmp_path / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return YamlSource.read(path)


def faults_of(tmp_path: Path, text: str | bytes) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, text)
    return [fault.replace(f"{tmp_path}/", "") for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (b"", ["x.yaml: the file is empty."]),
        (b"# only words\n", ["x.yaml: the file is empty."]),
        (b"a: 1\nb: \xff\n", ["x.yaml:2: must be UTF-8 text, got byte 0xff."]),
        (b"a: 1\nb: \x07\n", ["x.yaml:2: not valid YAML: special characters are not allowed."]),
        ("- a\n- b\n", ["x.yaml:1: must be a mapping of keys to values."]),
        (
            "a: [1,\nb: 2\n",
            [
                "x.yaml:3: not valid YAML: while parsing a flow sequence (line 1), "
                "expected ',' or ']', but got '<stream end>'."
            ],
        ),
        (
            "a: 1\n---\nb: 2\n",
            [
                "x.yaml:2: not valid YAML: expected a single document in the stream (line 1), "
                "but found another document."
            ],
        ),
        (
            "a: 1\nb: {c: 1, c: 2}\na: 3\n",
            [
                "x.yaml:2: key 'c' is given twice, first in line 2.",
                "x.yaml:3: key 'a' is given twice, first in line 1.",
            ],
        ),
        ("a: 1\n2: b\n", ["x.yaml:2: a key must be text, got 2; quote it."]),
        ("a: 1\non: b\n", ["x.yaml:2: a key must be text, got on; quote it."]),
        ("a: 1\n[b]: 1\n", ["x.yaml:2: a key must be text, got a list or mapping; quote it."]),
        (
            "a:\n  !!python/object/apply:os.system ['echo no']\n",
            ["x.yaml:2: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed."],
        ),
        ("a: !!python/name:os.system\n", None),
        ("a: !!set {b}\n", ["x.yaml:1: the tag 'tag:yaml.org,2002:set' is not allowed."]),
        ("a: 2024-13-45\n", None),
        ("a: &x\n  - *x\n", ["x.yaml:1: an anchor must not contain itself."]),
        ("a: *x\n", ["x.yaml:1: not valid YAML: found undefined alias 'x'."]),
        ("a: 1\n<<: 3\n", ["x.yaml:2: << must name a mapping or a list of mappings."]),
        ("a: " + "[" * 5000, ["x.yaml:1: not valid YAML: nested more than 64 deep."]),
        ("- " * 5000, ["x.yaml:1: not valid YAML: nested more than 64 deep."]),
        (
            "a: " + "9" * 5000,
            [f"x.yaml:1: '{'9' * 40}' is no value: a number or date must have at most 1,000 characters."],
        ),
        ("a: " + "1:" * 5000 + "1", None),
        ("a: !!bool maybe\n", ["x.yaml:1: 'maybe' is no value: not of the type 'bool'."]),
        ('a: "x\\0y"\n', ["x.yaml:1: 'x\\x00y' is no value: a text must not hold the character NUL."]),
        ("a: &a x\nb: [" + "*a, " * 1001 + "]", ["x.yaml:2: not valid YAML: there must be at most 1,000 aliases."]),
        ("#" * (128 << 10) + "\n", ["x.yaml: must have at most 0.125 MiB, it has 0.125."]),
    ],
)
def test_faults_of_a_file(tmp_path: Path, text: str | bytes, faults: list[str] | None) -> None:
    found = faults_of(tmp_path, text)
    if faults is None:
        assert len(found) == 1
        assert found[0].startswith("x.yaml:1: ")
    else:
        assert found == faults


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        YamlSource.read(tmp_path / "none.yaml")
    with pytest.raises(ConfigurationError, match=r"must be a regular file, it is a folder"):
        YamlSource.read(tmp_path)


def test_values(tmp_path: Path) -> None:
    text = "\ufeffn: 20_000\nr: 1e-3\ns: 3.5E2\nt: .5e1\nu: '1e-3'\nv: 12e\nw: 1.0e-3\nx: 0x1F\ny: 1_0e2\n"
    assert read(tmp_path, text).data == {
        "n": 20_000,
        "r": 0.001,
        "s": 350.0,
        "t": 5.0,
        "u": "1e-3",
        "v": "12e",
        "w": 0.001,
        "x": 31,
        "y": 1000.0,
    }


def test_what_is_written_reads_back_as_the_same(tmp_path: Path) -> None:
    data = {"b": "1e-3", "a": 1e-5, "c": [1, None, True, "yes", "ü", "2024-01-01"], "d": {}, "e": "x" * 300}
    source = read(tmp_path, to_yaml_text(data))
    assert source.data == data
    assert list(source.data) == list(data)


def test_anchors_and_merge_keys(tmp_path: Path) -> None:
    source = read(tmp_path, "base: &b {x: 1, y: 2}\nother:\n  <<: *b\n  y: 3\nlist: [*b, *b]\n")
    assert source.data["other"] == {"x": 1, "y": 3}
    assert source.data["list"] == [{"x": 1, "y": 2}] * 2


@pytest.mark.parametrize(("depth", "is_read"), [(10, True), (60, False)])
def test_nested_aliases_are_read_up_to_a_bound_of_values(tmp_path: Path, depth: int, is_read: bool) -> None:
    lines = ["a0: &a0 [1, 1]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, depth)]
    if is_read:
        assert read(tmp_path, "\n".join(lines)).data["a1"] == [[1, 1], [1, 1]]
    else:
        with pytest.raises(ConfigurationError, match="at most 100,000 values, aliases written out"):
            read(tmp_path, "\n".join(lines))


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("a" + ".a" * 64 + "=1", "must have at most 64 keys"),
        ("a=" + "x" * (128 << 10), "must have at most 64 keys and 128 KiB"),
        ("a=" + "[" * 5000, "the value is wrong: not valid YAML: nested more than 64 deep"),
        ("list." + "9" * 5000 + "=1", "is a list of 1, so it has no item"),
    ],
)
def test_settings_have_bounds(tmp_path: Path, setting: str, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault) as raised:
        read(tmp_path, "list: [1]\n").with_overrides([setting])
    assert len(str(raised.value)) < 10_000


def lines_of(source: YamlSource, *paths: tuple[str | int, ...]) -> list[str]:
    return list(source.error([Fault(path, key_text(path)) for path in paths]).faults)


def test_faults_are_sorted_by_line_and_name_each_once(tmp_path: Path) -> None:
    source = read(tmp_path, "a:\n  b: 1\nc:\n  - d: 1\n    e: 2\n  - {d: 3}\n")
    faults = lines_of(source, ("c", 1, "d"), ("c", 0, "e"), ("a", "missing"), ("a", "b"), ("a", "b"), ("new",))
    assert [fault.replace(f"{tmp_path}/", "") for fault in faults] == [
        "x.yaml:1: a.missing",
        "x.yaml:1: new",
        "x.yaml:2: a.b",
        "x.yaml:5: c[0].e",
        "x.yaml:6: c[1].d",
    ]


def test_overrides_change_values_and_are_named_in_faults(tmp_path: Path) -> None:
    source = read(tmp_path, "a:\n  b: 1\nc:\n  - d: 1\n  - d: 2\ne:\n")
    changed = source.with_overrides(["a.b=1e-3", "c.1.d=[1, 2]", "n.m.k=x", "e.f=true", "a.z="])
    assert changed.data == {
        "a": {"b": 0.001, "z": None},
        "c": [{"d": 1}, {"d": [1, 2]}],
        "e": {"f": True},
        "n": {"m": {"k": "x"}},
    }
    assert source.data["a"] == {"b": 1}
    faults = lines_of(changed, ("c", 1, "d", 0), ("a", "b"), ("a", "other"), ("n", "m", "gone"))
    assert [fault.replace(f"{tmp_path}/", "") for fault in faults] == [
        "x.yaml:1: a.other",
        "--set a.b=1e-3: a.b",
        "--set c.1.d=[1, 2]: c[1].d[0]",
        "--set n.m.k=x: n.m.gone",
    ]


def test_later_overrides_win() -> None:
    source = YamlSource.from_mapping({"a": 1}).with_overrides(["a={b: 1, c: 2}"]).with_overrides(["a.b=5"])
    assert source.data == {"a": {"b": 5, "c": 2}}
    assert lines_of(source, ("a", "b"), ("a", "c")) == [
        "--set a={b: 1, c: 2}: a.c",
        "--set a.b=5: a.b",
    ]


def test_faulty_overrides_are_all_named() -> None:
    source = YamlSource.from_mapping({"a": 1, "c": [1]})
    with pytest.raises(ConfigurationError) as caught:
        source.with_overrides(["a", "a..b=1", "a.b=1", "c.1=2", "c.x=2", "a=[1", "a={b: 1, b: 2}"])
    assert caught.value.faults == (
        "--set a: must be KEY.PATH=VALUE.",
        "--set a..b=1: must be KEY.PATH=VALUE.",
        "--set a.b=1: a is no mapping, so it has no 'b'.",
        "--set c.1=2: c is a list of 1, so it has no item '1'.",
        "--set c.x=2: c is a list of 1, so it has no item 'x'.",
        "--set a=[1: the value is wrong: not valid YAML: while parsing a flow sequence (line 1), "
        "expected ',' or ']', but got '<stream end>'.",
        "--set a={b: 1, b: 2}: the value is wrong: key 'b' is given twice, first in line 1.",
    )


def test_a_configuration_from_python_has_no_lines() -> None:
    source = YamlSource.from_mapping({"a": {"b": (1, 2)}})
    assert source.data == {"a": {"b": [1, 2]}}
    assert lines_of(source, ("a", "b", 0)) == ["<config>: a.b[0]"]
