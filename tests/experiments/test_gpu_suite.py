"""The suite's way of running parts, with parts that end well, fail, hang and are missing something."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.gpu_suite import parts as suite_parts
from experiments.gpu_suite.parts import PARTS, REQUIREMENTS, GpuTests, Part, Setting
from experiments.gpu_suite.suite import DONE, FAILED, NOT_RUN, TIME_UP, Suite, load_before, write_whole

WRITES = "import json, sys; json.dump({'figure': 1}, open(sys.argv[1], 'w')); print('written')"
# A process whose child would live on: both must go when time is up.
HANGS = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[2], "w").write(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""


class Script(Part):
    share = 1.0
    needs = ()

    def __init__(self, name, code, *arguments):
        self.name = name
        self._code, self._arguments = code, arguments

    def command(self, setting):
        return [sys.executable, "-c", self._code, str(setting.result), *map(str, self._arguments)]


class Needy(Script):
    needs = ("pymoo",)


def run(*chosen, seconds=600.0, before=None):
    kept = []
    suite = Suite(chosen, seconds, True, lambda text: None)
    return suite.run(before or {}, lambda ends: kept.append(json.loads(json.dumps(ends)))), kept


def test_a_part_that_fails_is_reported_and_the_rest_goes_on():
    ends, kept = run(
        Script("raises", "print('before'); raise ValueError('boom')"),
        Script("says nothing", "pass"),
        Script("writes and fails", WRITES + "; sys.exit(3)"),
        Script("good", WRITES),
    )
    assert [end["state"] for end in ends.values()] == [FAILED, FAILED, FAILED, DONE]
    assert ends["raises"]["reason"] == "exit code 1, and no result"
    assert ends["raises"]["last_lines"][-1] == "ValueError: boom"
    assert ends["says nothing"]["reason"] == "exit code 0, and no result"
    assert ends["writes and fails"]["reason"] == "exit code 3"
    assert ends["good"]["result"] == {"figure": 1}
    assert [list(ends) for ends in kept] == [list(ends)[: n + 1] for n in range(4)]


def test_a_part_that_hangs_is_ended_with_its_children_and_the_rest_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.gpu_suite.suite._MIN_SECONDS", 0.0)
    ids = tmp_path / "ids"
    ends, _ = run(Script("hangs", HANGS, ids), Script("good", WRITES), seconds=8.0)
    assert [end["state"] for end in ends.values()] == [TIME_UP, DONE]
    assert ends["hangs"]["result"] is None
    for pid in ids.read_text().split():
        path = Path(f"/proc/{pid}/stat")
        assert not path.exists() or path.read_text().split()[2] == "Z"  # ended, if nobody has looked yet


def test_what_is_done_is_not_run_again_and_what_failed_is(tmp_path):
    before = {"good": {"state": DONE, "result": {"figure": 7}}, "bad": {"state": FAILED, "reason": "of then"}}
    ends, _ = run(Script("good", "raise ValueError"), Script("bad", WRITES), before=before)
    assert ends["good"] == before["good"]
    assert ends["bad"]["result"] == {"figure": 1}


def test_a_part_without_its_libraries_or_without_time_is_not_started(monkeypatch):
    monkeypatch.setattr("experiments.gpu_suite.suite.importlib.util.find_spec", lambda name: None)
    assert run(Needy("needy", WRITES))[0]["needy"] == {
        "state": NOT_RUN,
        "reason": f"not installed: {REQUIREMENTS['pymoo']}",
    }
    assert run(Script("late", WRITES), seconds=1.0)[0]["late"] == {"state": NOT_RUN, "reason": "no time was left"}


@pytest.mark.parametrize(
    ("kept", "found"),
    [
        ({"rehearsal": True, "accelerator": None, "parts": {"a": 1}}, {"a": 1}),
        ({"rehearsal": False, "accelerator": None, "parts": {"a": 1}}, {}),
        ({"rehearsal": True, "accelerator": "H100", "parts": {"a": 1}}, {}),
        ({}, {}),
    ],
)
def test_it_goes_on_only_from_the_same_suite_on_such_a_machine(tmp_path, kept, found):
    path = tmp_path / "kept.json"
    assert load_before(path, rehearse=True, accelerator=None) == {}
    write_whole(path, kept)
    assert load_before(path, rehearse=True, accelerator=None) == found
    path.write_text("{")
    assert load_before(path, rehearse=True, accelerator=None) == {}


def test_tests_are_counted_up_to_where_they_got(tmp_path):
    setting = Setting(tmp_path, 60, rehearse=True)
    assert GpuTests().result(setting) is None
    lines = [("a", "passed", ""), ("b", "failed", "E  assert 1 == 2"), ("c", "skipped", "needs a CUDA device")]
    keys = ("test", "outcome", "reason")
    setting.result.write_text("\n".join(json.dumps(dict(zip(keys, line, strict=True))) for line in lines))
    result = GpuTests().result(setting)
    assert result == {
        "passed": 1,
        "skipped": 1,
        "failed": 1,
        "failures": {"b": "E  assert 1 == 2"},
        "reasons_to_skip": {"needs a CUDA device": 1},
    }
    assert GpuTests().fault(result) == "1 tests failed"


def test_the_plugin_writes_down_each_test_as_it_ends(tmp_path, pytester_like):
    outcomes = pytester_like(
        "import pytest\n"
        "def test_passes(): pass\n"
        "def test_fails(): assert 1 == 2\n"
        "@pytest.mark.skip(reason='not here')\n"
        "def test_is_skipped(): pass\n"
        "@pytest.fixture\n"
        "def broken(): raise ValueError('no')\n"
        "def test_has_no_start(broken): pass\n"
    )
    ends = {line["test"].rpartition("::")[2]: line["outcome"] for line in outcomes}
    assert [line["reason"] for line in outcomes if "fails" in line["test"]] == ["assert 1 == 2"]
    assert [line["reason"] for line in outcomes if "skipped" in line["test"]] == ["not here"]
    assert ends == {
        "test_passes": "passed",
        "test_fails": "failed",
        "test_is_skipped": "skipped",
        "test_has_no_start": "failed",
    }


@pytest.fixture
def pytester_like(tmp_path):
    """Return a function that runs pytest on a file and returns the outcomes that were written down."""

    def run_tests(text):
        (tmp_path / "test_it.py").write_text(text)
        command = [sys.executable, "-m", "pytest", "-p", "experiments.gpu_suite.outcomes", "--outcomes=ends", "-q"]
        environment = {**os.environ, "PYTHONPATH": str(suite_parts.ROOT)}
        subprocess.run([*command, "test_it.py"], cwd=tmp_path, env=environment, capture_output=True, check=False)
        return [json.loads(line) for line in (tmp_path / "ends").read_text().splitlines()]

    return run_tests


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
@pytest.mark.parametrize("rehearse", [False, True])
def test_every_part_has_a_command_and_known_needs(part, rehearse, tmp_path):
    command = part.command(Setting(tmp_path, 100.0, rehearse))
    assert command[:2] == [sys.executable, "-m"]
    assert str(tmp_path / "result.json") in " ".join(command)
    assert set(part.needs) <= REQUIREMENTS.keys()
    assert ("cuda" in command) <= (not rehearse)


def test_the_shares_are_the_whole():
    assert sum(part.share for part in PARTS) == pytest.approx(1.0)
    assert len({part.name for part in PARTS}) == len(PARTS)
