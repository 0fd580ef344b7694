import json
import re

import onnx
import pytest
from onnx import TensorProto, helper
from torch import nn
from typer.testing import CliRunner

from latency.counting.complexity import count_model
from latency.graph.onnx_writer import write_onnx
from nas import load_run
from nas.cli.app import app
from nas.errors import InputError
from search_spaces.spaces.nasbench201 import NasBench201

CELL = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
FACTORIES = """
from collections import OrderedDict

from torch import nn

def network():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))

def deep():
    layers = nn.Sequential(nn.Conv2d(3, 1024, 3), nn.ReLU())
    return nn.Sequential(OrderedDict(a_name_that_is_long=nn.Sequential(OrderedDict(convolutions=layers))))

class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x

def number():
    return 4

def broken():
    raise RuntimeError("no weights")
"""


def run(*arguments):
    result = CliRunner().invoke(app, ["profile", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def factories(tmp_path, monkeypatch):
    (tmp_path / "made_for_profiles.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    return "made_for_profiles"


@pytest.mark.parametrize("text", ["genes", "string"])
def test_a_genotype_of_a_configuration(tiny_config, text):
    space = NasBench201(width=4, cells_per_stage=1)
    genotype = space.canonical(space.from_string(CELL))
    given = CELL if text == "string" else ",".join(map(str, space.from_string(CELL).genes))
    found = json.loads(run(tiny_config, "--genotype", given, "--json"))
    model = space.build(genotype, in_channels=1, n_classes=10, seed=0).eval()
    expected = count_model(model, (1, 28, 28))
    assert (found["n_params"], found["n_macs"]) == (expected.n_params, expected.n_macs)
    assert found["other_operations"] == expected.other_operations
    assert found["network"] == space.describe(genotype)
    assert (found["is_partial"], found["problems"]) == (False, [])
    assert sum(row["n_macs"] for row in found["modules"]) == expected.n_macs
    assert sum(row["time_share"] for row in found["modules"]) == pytest.approx(1)
    assert found["latency"]["phone"]["median_ms"] > 0


def test_a_candidate_of_a_run_costs_what_its_record_says(tiny_run):
    record = load_run(tiny_run).front[0]
    found = json.loads(run(tiny_run, "--candidate", record.id, "--json"))
    assert found["latency"]["phone"]["median_ms"] == pytest.approx(record.metrics["latency_ms"])
    assert found["n_params"] == record.metrics["n_params"]
    assert found["network"].startswith(record.id)


def test_an_onnx_file_with_its_plot(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)).eval()
    write_onnx(model, (3, 8, 8), tmp_path / "net.onnx")
    output = run(tmp_path / "net.onnx", "--plot", tmp_path / "memory.png", "--device", "onnxruntime:n_runs=3")
    assert "7,776" in output  # 27 * 8 * 36
    assert "latency on onnxruntime:n_runs=3: " in output
    # 2,304 bytes, or 8 more where onnxscript writes Flatten as Reshape with a shape
    assert re.search(r"peak 2\.[23] KiB of activations at operator ", output)
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(run(tmp_path / "net.onnx", "--device", "fake", "--json"))
    assert found["problems"] == ["No latency on fake: an ONNX file runs on devices of kind onnxruntime only"]


def test_an_onnx_file_for_a_fixed_batch_is_counted_and_measured_with_that_batch(tmp_path):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 2, 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path := tmp_path / "four.onnx")
    for arguments in ((), ("--input", "4,2,3")):
        found = json.loads(run(path, *arguments, "--device", "onnxruntime:n_runs=3", "--json"))
        assert found["latency"]["onnxruntime:n_runs=3"]["conditions"]["batch_size"] == 4
        assert (found["batch_size"], found["input_shape"], found["problems"]) == (4, [2, 3], [])
        assert found["other_operations"] == {"activation": 6}  # of one sample
        assert found["memory"]["bytes_by_kind"]["activation"] == 4 * 24
    with pytest.raises(InputError, match=r"size 0 of its input 'x' is 4, not 1"):
        run(path, "--input", "1,2,3", "--device", "onnxruntime:n_runs=3")


def test_an_importable_model(factories):
    arguments = ("--model", f"{factories}:network", "--input", "2,3,8,8", "--trust-code", "--device", "fake")
    found = json.loads(run(*arguments, "--json"))
    assert (found["n_macs"], found["n_params"]) == (27 * 8 * 36 + 8 * 36 * 4, 224 + 4 * 289)
    assert (found["batch_size"], found["latency"]["fake"]["conditions"]["batch_size"]) == (2, 2)
    convolution = found["modules"][0]
    assert (convolution["output_shape"], convolution["activation_bytes"]) == ([2, 8, 6, 6], 2 * 8 * 36 * 4)


def test_a_model_that_cannot_be_traced_is_still_measured(factories):
    arguments = ("--model", f"{factories}:Branching", "--input", "1,4", "--trust-code")
    output = run(*arguments, "--device", "torch_cpu:n_runs=3", "--plot", "memory.png")
    assert "Not counted: cannot trace Branching" in output
    assert "latency on torch_cpu:n_runs=3: " in output
    assert "--plot: memory.png was not drawn, as the network cannot be traced" in output


def test_where_the_memory_goes(factories):
    arguments = ("--model", f"{factories}:network", "--input", "2,3,8,8", "--trust-code", "--device", "fake")
    breakdown = json.loads(run(*arguments, "--breakdown", "cpu", "--json"))["memory_breakdown"]
    inference, step = ({p["name"]: p["n_bytes"] for p in breakdown[name]["parts"]} for name in breakdown)
    weights = 4 * (224 + 4 * 289)
    assert inference["weights"] == step["weights"] == weights
    assert inference["input"] == 4 * 2 * 3 * 8 * 8
    assert step["optimizer_state"] == 2 * weights + 4 * 4  # two moments; a step counter for each of four tensors
    output = run(*arguments, "--breakdown", "cpu")
    assert "memory of inference on cpu" in output
    assert "memory of training step on cpu" in output


def test_a_table_fits_80_columns_and_tells_modules_apart(factories, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    output = run("--model", f"{factories}:deep", "--input", "1,3,16,16", "--trust-code", "--device", "fake")
    rows = output.splitlines()[1:5]
    assert [row.split()[0] for row in rows] == ["module", "a_name…onvolutions.0", "a_name…onvolutions.1", "total"]
    assert rows[1].split()[1:5] == ["28.7k", "5.4M", "0", "1x1024x14x14"]
    assert max(map(len, rows)) <= 80


def test_a_wrong_input_is_one_error(factories):
    with pytest.raises(InputError, match=r"does not run on its input \(--input\)\. .* Conv2d '0' on an input of shape"):
        run("--model", f"{factories}:network", "--input", "1,5,8,8", "--trust-code", "--device", "torch_cpu:n_runs=3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give one of CONFIG, RUN, FILE.onnx and --model"),
        (("--model", "a:b"), r"--model needs the input's sizes with the batch"),
        (("--model", "a:b", "--input", "1,4"), r"--model names Python code \('a:b'\); pass --trust-code"),
        (("--model", "a:b", "--input", "1,x"), r"--input must be positive sizes .* got '1,x'"),
        (("--model", "made_for_profiles:number", "--input", "1,4", "--trust-code"), r"torch.nn.Module, got a int"),
        (("--model", "made_for_profiles:broken", "--input", "1,4", "--trust-code"), r"failed: RuntimeError: no weig"),
        (("gone.onnx",), r"there is no gone.onnx: give a configuration, a run's folder or an ONNX file"),
        (("CONFIG", "--genotype", "1,1,1,1,1,1", "--input", "8,1,28,28"), r"--input has no effect with a configurat"),
        (("RUN", "--candidate", "a", "--set", "seed=1"), r"--set has no effect with a run"),
        (("--model", "a:b", "--input", "1,4", "--genotype", "1"), r"--genotype has no effect with --model"),
        (("CONFIG",), r"--genotype must be given"),
        (("CONFIG", "--genotype", "1,2"), r"--genotype: a genotype of 'nasbench201' has 6 genes, got 2"),
        (("CONFIG", "--genotype", "|x"), r"--genotype: an architecture string has 3 nodes"),
        (("CONFIG", "--genotype", "1,1,1,1,1,1", "--device", "fone"), r"unknown device 'fone'. Did you mean 'phone'?"),
        (("CONFIG", "--genotype", "1,1,1,1,1,1", "--device", "fake:base=1"), r"fake: unknown key 'base'"),
        (("CONFIG", "--genotype", "1,1,1,1,1,1", "--device", "fake:spread=2"), r"fake.spread must be .* less than 1"),
        (("CONFIG", "--genotype", "1,1,1,1,1,1", "--breakdown", "cuda:99"), r"--breakdown: torch sees \d+ CUDA dev"),
        (("RUN",), r"--candidate ID must be given"),
        (("RUN", "--candidate", "zz"), r"no candidate whose id starts with 'zz'"),
    ],
)
def test_faults_of_the_user_say_what_to_do(arguments, message, tiny_config, tiny_run, factories):
    places = {"CONFIG": tiny_config, "RUN": tiny_run}
    with pytest.raises(InputError, match=message):
        run(*(places.get(argument, argument) for argument in arguments))
