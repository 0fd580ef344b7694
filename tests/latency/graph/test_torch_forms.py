"""Models in other precisions, scripted, exported, compiled, quantised: traced, or a message about that."""

import copy

import pytest
import torch
from torch import nn

from latency.counting.complexity import count, count_model
from latency.errors import TracingError
from latency.graph.operator_graph import StorageKind
from latency.graph.tracer import graph_from_torch

N_PARAMS, N_MACS = 3 * 4 * 9 + 4 + 8 + 144 * 5 + 5, 27 * 4 * 36 + 144 * 5
MACS_BY_MODULE = {"stem.0": 27 * 4 * 36, "head": 144 * 5}


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(144, 5)

    def forward(self, image):
        return self.head(self.stem(image).flatten(1))


@pytest.fixture
def model():
    return Network().eval()


def exported(model, mode=None):
    return torch.export.export(model, (torch.zeros(1, 3, 8, 8),)).module()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_traced_with_an_input_of_theirs(model, dtype):
    graph = graph_from_torch(model.to(dtype), (3, 8, 8))
    assert graph.tensors[graph.inputs[0]].dtype is dtype
    found = count(graph).require_complete()
    assert (found.n_params, found.n_macs, found.macs_by_module) == (N_PARAMS, N_MACS, MACS_BY_MODULE)
    assert graph.storage_bytes(StorageKind.PARAMETER) == N_PARAMS * dtype.itemsize


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("script", [torch.jit.script, lambda m: torch.jit.trace(m, torch.zeros(1, 3, 8, 8))])
def test_scripts_are_traced(model, script):
    scripted = script(model)
    found = count_model(scripted, (3, 8, 8)).require_complete()
    assert (found.n_params, found.n_macs, found.macs_by_module) == (N_PARAMS, N_MACS, MACS_BY_MODULE)
    assert all(parameter.device.type == "cpu" for parameter in scripted.parameters())
    assert set(found.params_by_module) == {"stem.0", "stem.1", "head"}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_frozen_script_is_refused_in_words(model):
    with pytest.raises(TracingError, match=r"torch.jit.freeze made constants of its weights"):
        count_model(torch.jit.freeze(torch.jit.script(model)), (3, 8, 8))


def test_exported_models_are_traced(model):
    found = count_model(exported(model), (3, 8, 8)).require_complete()
    assert (found.n_params, found.n_macs, found.macs_by_module) == (N_PARAMS, N_MACS, MACS_BY_MODULE)


def test_a_model_exported_in_train_mode_is_refused_in_words(model):
    with pytest.raises(
        ValueError, match=r"exported in train mode \(aten.batch_norm.default\): call model.eval\(\) before"
    ):
        count_model(exported(model.train()), (3, 8, 8))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_compiled_model_is_traced(model):
    found = count_model(torch.compile(model), (3, 8, 8))
    assert (found.n_params, found.macs_by_module) == (N_PARAMS, MACS_BY_MODULE)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor:UserWarning")
def test_a_quantised_model_is_refused_in_words(model):
    quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}).eval()
    with pytest.raises(TracingError, match=r"cannot trace Linear 'head': torch packs the weights of quantised modules"):
        count_model(quantised, (3, 8, 8))


def test_models_of_tokens_say_what_they_take():
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2)).eval()
    assert count_model(model, (7,), dtype=torch.int64).require_complete().n_macs == 7 * 8
    with pytest.raises(TracingError, match=r"an embedding takes integers: give dtype=torch.int64"):
        count_model(model, (7,))
