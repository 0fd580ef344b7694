"""nas latency: readings of a device, and searches by what they foretell."""

import dataclasses
import json

import pytest
import yaml

import nas
from latency.devices import TorchCpuDevice
from latency.devices.fake_device import FakeDevice
from latency.errors import DeviceUnavailableError, MeasurementError
from latency.predictors.device_model import DeviceModel
from latency.timing.energy import EnergyReading
from nas.errors import InputError, MachineError
from nas.profiling.collecting import collect, evaluate
from nas.store.folding import CONFIRMATION
from nas.store.run_folder import RunFolder


@pytest.fixture(scope="module")
def config(tiny_config):
    """The tiny run's configuration with a fake device whose latencies tell networks apart."""
    settings = yaml.safe_load(tiny_config.read_text())
    settings["devices"] = {"board": {"kind": "fake", "macs_per_ms": 1e5}}
    settings["objectives"] = [{"metric": "accuracy"}, {"metric": "latency_ms", "device": "board"}]
    del settings["constraints"]
    path = tiny_config.parent / "board.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def collected(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("latency") / "board.jsonl"
    collect(config, "board", 24, path)
    return path


def test_readings_foretell_the_others(collected, command):
    figures = evaluate(collected).figures
    assert figures["n"] == 24
    assert figures["spearman"] > 0.95
    assert figures["within_10"] > 0.8
    _, out, _ = command("latency", "evaluate", collected, "--json")
    assert json.loads(out) == figures
    assert "spearman" in command("latency", "evaluate", collected)[1]


def test_a_fitted_file_says_what_it_holds_for_and_foretells_the_same(collected, command, tmp_path):
    path = tmp_path / "model.jsonl"
    code, out, _ = command("latency", "fit", collected, "--out", path)
    assert code == 0
    assert "24 networks of" in out
    header = json.loads(path.read_text().splitlines()[0])
    assert header["device"]["kind"] == "fake"
    assert sum(header["fitted"]["weights"].values()) == pytest.approx(1)
    low, high = header["fitted"]["latency_ms"]
    assert 0 < low < high
    assert header["fitted"]["versions"].keys() == {"numpy", "scikit-learn"}
    before, after = DeviceModel.load(collected), DeviceModel.load(path)
    layers = [before.readings[3].layers]
    assert after.foretell(layers) == before.foretell(layers)
    assert command("latency", "fit", tmp_path / "none.jsonl")[0] == 2
    assert "cannot be written" in command("latency", "fit", collected, "--out", tmp_path / "no" / "model.jsonl")[2]


def test_an_interrupted_collection_goes_on_to_the_same_networks(config, collected, tmp_path):
    path = tmp_path / "board.jsonl"
    lines = collected.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:9]) + lines[9][:30])  # killed while it wrote
    seen = []
    collect(config, "board", 24, path, on_progress=lambda name, n_done, n_all: seen.append((name, n_done)))
    assert [n for name, n in seen if name == "measured"] == list(range(9, 25))
    names = [json.loads(line)["name"] for line in path.read_text().splitlines()[1:]]
    assert len(set(names)) == 24
    assert names[:8] == [json.loads(line)["name"] for line in lines[1:9]]


@pytest.mark.parametrize("content", [b"", b'{"format": "pareto-nas lat'])
def test_a_file_that_holds_no_whole_line_is_begun_anew(config, tmp_path, content):
    path = tmp_path / "board.jsonl"
    path.write_bytes(content)
    assert collect(config, "board", 10, path).n_models == 10


def test_fewer_networks_than_there_are_already_measure_none_but_the_first_again(config, collected, tmp_path):
    path = tmp_path / "board.jsonl"
    path.write_bytes(collected.read_bytes())
    found = collect(config, "board", 10, path)
    assert found.n_models == 24
    assert len(path.read_text().splitlines()) <= len(collected.read_text().splitlines()) + found.n_repeated


def test_readings_of_something_else_are_not_added_to(config, collected):
    with pytest.raises(InputError, match="holds readings of something else"):
        collect(config, "board", 24, collected, overrides=["devices.board.macs_per_ms=7"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "bord"), "devices has no 'bord' to measure on; it has board"),
        (("--device", "board", "-n", "5"), "-n must be at least 10"),
    ],
)
def test_what_cannot_be_collected_is_refused_before_anything_is_measured(config, command, tmp_path, arguments, message):
    path = tmp_path / "none.jsonl"
    code, _, err = command("latency", "collect", config, *arguments, "--out", path)
    assert code == 2
    assert message in err
    assert not path.exists()


@pytest.mark.trains
def test_a_search_by_predicted_latency_measures_its_front_where_the_device_is(config, collected, tmp_path):
    overrides = [f"devices.board={{kind: predicted, model: {collected}}}"]
    run = nas.run_search(config, tmp_path / "runs" / "predicted", overrides=overrides)
    with RunFolder.read(run.path) as folder:
        readings = [o for o in folder.store.observations() if o.metric.startswith("latency_ms")]
    assert {o.conditions["device"] for o in readings if o.stage != CONFIRMATION} == {"predicted"}
    confirmed = {o.candidate: o for o in readings if o.stage == CONFIRMATION}
    assert confirmed.keys() >= {record.id for record in run.front}
    assert {o.conditions["device"] for o in confirmed.values()} == {"fake"}
    first = {o.candidate: o.value for o in readings if o.stage != CONFIRMATION}
    assert all(abs(first[name] / o.value - 1) < 0.3 for name, o in confirmed.items())


@pytest.mark.parametrize("fault", ["far off", "disturbed"])
def test_a_doubtful_reading_is_taken_again_and_the_median_counts(config, monkeypatch, tmp_path, fault):
    measure, path, calls = FakeDevice.measure_latency, tmp_path / "board.jsonl", []

    def flawed(self, model, shape):
        stats = measure(self, model, shape)
        calls.append(stats.median_ms)
        if len(calls) != 15:
            return stats
        if fault == "disturbed":
            return dataclasses.replace(stats, conditions={**stats.conditions, "is_disturbed": True})
        return dataclasses.replace(stats, median_ms=20 * stats.median_ms, p90_ms=20 * stats.p90_ms)

    monkeypatch.setattr(FakeDevice, "measure_latency", flawed)
    found = collect(config, "board", 24, path)
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    again = [line["latency_ms"] for line in lines if line["name"] == lines[14]["name"]]
    assert len(again) == 2
    assert again[1] == calls[14]
    assert found.n_repeated >= 2  # it, and the first network


def test_a_network_that_cannot_be_measured_is_left_out_and_a_lost_device_loses_nothing(config, monkeypatch, tmp_path):
    measure, path = FakeDevice.measure_latency, tmp_path / "board.jsonl"
    n_calls = []

    def flawed(self, model, shape):
        n_calls.append(1)
        if len(n_calls) == 3:
            raise MeasurementError("not this one")
        if len(n_calls) == 8:
            raise DeviceUnavailableError("gone")
        return measure(self, model, shape)

    monkeypatch.setattr(FakeDevice, "measure_latency", flawed)
    with pytest.raises(MachineError, match="the device cannot measure any more: .*gone"):
        collect(config, "board", 12, path)
    found = collect(config, "board", 12, path)
    assert (found.n_models, found.n_failed) == (12, 0)
    lines = path.read_text().splitlines()
    assert len({json.loads(line)["name"] for line in lines[1:]}) == 12
    monkeypatch.setattr(FakeDevice, "check", lambda self: (_ for _ in ()).throw(DeviceUnavailableError("not here")))
    with pytest.raises(InputError, match=r"devices.board: not here"):
        collect(config, "board", 12, path)


@pytest.fixture
def energy_config(config, tmp_path):
    settings = yaml.safe_load(config.read_text())
    settings["devices"] = {"board": {"kind": "torch_cpu"}}
    settings["objectives"] = [{"metric": "accuracy"}, {"metric": "energy_mj", "device": "board"}]
    settings["execution"] = {"kind": "serial", "isolated": False}  # what is patched holds in this process alone
    path = tmp_path / "energy.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_energy_is_refused_at_once_where_there_is_no_counter(energy_config, monkeypatch, tmp_path):
    def none(self):
        raise DeviceUnavailableError("this machine shows no energy counter")

    monkeypatch.setattr(TorchCpuDevice, "check_energy", none)
    monkeypatch.setattr(TorchCpuDevice, "measure_energy", lambda *args: pytest.fail("it was measured"))
    with pytest.raises(InputError, match="devices.board: this machine shows no energy counter"):
        nas.run_search(energy_config, tmp_path / "run")
    assert not (tmp_path / "run" / "artifacts").exists()


@pytest.mark.trains
def test_a_search_by_energy_stores_it_with_its_conditions(energy_config, monkeypatch, tmp_path):
    def measure(self, model, shape):
        n_parameters = sum(p.numel() for p in model.parameters())
        return EnergyReading(0.01 * n_parameters, 2.0, 9.0, 100, 5.0, "made up", {"device": "cpu"})

    monkeypatch.setattr(TorchCpuDevice, "check_energy", lambda self: None)
    monkeypatch.setattr(TorchCpuDevice, "measure_energy", measure)
    run = nas.run_search(energy_config, tmp_path / "run")
    assert run.front
    with RunFolder.read(run.path) as folder:
        found = [o for o in folder.store.observations() if o.metric == "energy_mj"]
    assert {record.id for record in run.front} <= {o.candidate for o in found}
    assert all(o.value > 0 for o in found)
    assert {(o.conditions["energy_counter"], o.conditions["device"]) for o in found} == {("made up", "cpu")}


def test_layers_are_measured_alone_first_and_kept(config, command, tmp_path):
    path = tmp_path / "board.jsonl"
    code, out, _ = command(
        "latency", "collect", config, "--device", "board", "-n", "14", "--layers", "7", "--out", path
    )
    assert code == 0
    assert "14 networks, 7 layers alone" in out
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    assert [line.get("is_alone", False) for line in lines[:8]] == [True] * 7 + [False]
    assert all(len(line["layers"]) == 1 for line in lines[:7])
    found = collect(config, "board", 14, path, n_alone=7)
    assert (found.n_models, found.n_alone) == (14, 7)
    assert len([line for line in path.read_text().splitlines() if "is_alone" in line]) == 7  # none again
    model = DeviceModel.load(path)
    assert len(model.alone) == 7
    fitted = tmp_path / "model.jsonl"
    assert command("latency", "fit", path, "--out", fitted)[0] == 0
    layers = [model.readings[2].layers]
    assert DeviceModel.load(fitted).foretell(layers) == model.foretell(layers)
    assert evaluate(path).n == 14
    with pytest.raises(InputError, match="--layers must be at least 0"):
        collect(config, "board", 14, path, n_alone=-1)


def test_a_layer_that_cannot_be_measured_alone_is_named_and_left_out(config, monkeypatch, tmp_path, caplog):
    measure, calls = FakeDevice.measure_latency, []

    def flawed(self, model, shape):
        calls.append(shape)
        if len(calls) == 2:
            raise MeasurementError("made up")
        return measure(self, model, shape)

    monkeypatch.setattr(FakeDevice, "measure_latency", flawed)
    found = collect(config, "board", 10, tmp_path / "board.jsonl", n_alone=4)
    assert (found.n_models, found.n_alone) == (10, 3)
    assert "cannot be measured alone, and is estimated: made up" in caplog.text
