import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from latency.errors import TracingError
from latency.graph.operator_graph import StorageKind
from latency.graph.tracer import graph_from_torch
from tests.latency.functions import Function


def trace(function, input_shape=(4,)):
    return graph_from_torch(Function(function).eval(), input_shape)


def storages(graph, tensors):
    return [graph.tensors[tensor].storage for tensor in tensors]


def test_operators_have_names_shapes_and_the_module_they_ran_in():
    model = nn.Sequential()
    model.add_module("stem", nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)))
    model.add_module("head", nn.Sequential(nn.Flatten(), nn.Linear(8 * 16, 5)))
    graph = graph_from_torch(model.eval(), (3, 8, 8), batch_size=2)
    convolution, linear = graph.operators[0], graph.operators[-1]
    assert (convolution.name, convolution.module) == ("aten.convolution", "stem.0")
    assert [graph.tensors[t].shape for t in convolution.inputs] == [(2, 3, 8, 8), (8, 3, 3, 3)]
    assert [graph.tensors[t].shape for t in convolution.outputs] == [(2, 8, 4, 4)]
    assert convolution.attributes["stride"] == [2, 2]
    assert convolution.attributes["transposed"] is False
    assert (linear.name, linear.module) == ("aten.addmm", "head.1")
    assert [graph.tensors[t].shape for t in graph.outputs] == [(2, 5)]
    assert graph.outputs == linear.outputs
    assert graph.inputs == convolution.inputs[:1]
    assert graph.parameters["stem.0.weight"] == convolution.inputs[1]
    assert graph.batch_size == 2


def test_views_and_in_place_results_share_their_storage():
    graph = trace(lambda x: (x * 2).view(2, 2).t().relu_().add(1))
    names = [operator.name for operator in graph.operators]
    assert names == ["aten.mul", "aten.view", "aten.t", "aten.relu_", "aten.add"]
    mul, view, t, relu, add = (storages(graph, operator.outputs)[0] for operator in graph.operators)
    assert mul == view == t == relu
    assert len({mul, add, *storages(graph, graph.inputs)}) == 3
    assert graph.operators[3].outputs == graph.operators[3].inputs


def test_repeated_calls_get_memory_of_their_own():
    graph = trace(lambda x: x.exp() + x.exp() + x.exp())
    assert len({storages(graph, operator.outputs)[0] for operator in graph.operators}) == 5
    assert graph.storage_bytes(StorageKind.ACTIVATION) == 5 * 16


def test_equal_numbers_of_other_types_are_other_calls():
    def promote(x):
        return x.long().mul(1), x.long().mul(1.0), x.long().mul(True)

    graph = trace(promote)
    assert [graph.tensors[t].dtype for t in graph.outputs] == [torch.int64, torch.float32, torch.int64]


def test_a_call_after_an_in_place_change_of_shape_is_not_taken_from_an_earlier_one():
    graph = trace(lambda x: (x.exp().unsqueeze_(0), x.exp()))
    assert [graph.tensors[t].shape for t in graph.outputs] == [(1, 1, 4), (1, 4)]


def test_storages_know_what_they_hold():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)).eval()
    graph = graph_from_torch(model, (3, 4, 4))
    assert graph.storage_bytes(StorageKind.PARAMETER) == 4 * (24 + 8 + 8 + 8)
    assert graph.storage_bytes(StorageKind.BUFFER) == 4 * (8 + 8) + 8
    assert graph.storage_bytes(StorageKind.INPUT) == 4 * 48


def test_shared_parameters_stand_there_once():
    layer = nn.Linear(4, 4, bias=False)
    graph = graph_from_torch(nn.Sequential(layer, nn.ReLU(), layer).eval(), (4,))
    assert list(graph.parameters) == ["0.weight"]
    assert [operator.module for operator in graph.operators if operator.name == "aten.mm"] == ["0", "0"]


def test_tensors_outside_the_parameters_are_part_of_the_graph():
    constant = torch.arange(4.0)
    graph = trace(lambda x: x * constant + torch.ones(4) + x.to("cpu"))
    assert [graph.tensors[t].shape for t in graph.outputs] == [(1, 4)]
    assert constant.tolist() == [0, 1, 2, 3]


def test_twins_of_real_views_share_a_storage():
    rows = torch.zeros(3, 4).unbind()
    graph = trace(lambda x: x * rows[0] + x * rows[1])
    first, second = (operator for operator in graph.operators if operator.name == "aten.mul")
    assert storages(graph, first.inputs[1:]) == storages(graph, second.inputs[1:])
    assert first.inputs[1] != second.inputs[1]


@pytest.mark.parametrize(
    "branch",
    [
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x * x.max().item(),
        lambda x: x[x > 0],
        lambda x: x.numpy(),
    ],
    ids=["if", "item", "mask", "numpy"],
)
def test_a_model_that_branches_on_data_is_refused_with_the_place(branch):
    model = nn.Sequential(nn.Linear(4, 4), Function(branch)).eval()
    with pytest.raises(TracingError, match=r"cannot trace Function '1' on .*\(1, 4\): it reads the numbers"):
        graph_from_torch(model, (4,))


def test_a_wrong_shape_is_refused_with_the_place():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 2)).eval()
    with pytest.raises(TracingError, match=r"cannot trace Linear '1' on an input of shape \(1, 4\)"):
        graph_from_torch(model, (4,))


def test_train_mode_and_bad_sizes_are_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    model[1].train()
    with pytest.raises(ValueError, match=r"eval mode, but its module '1' is in train mode: call model.eval"):
        graph_from_torch(model, (4,))
    with pytest.raises(ValueError, match=r"input_shape must hold positive sizes .* got \(0,\)"):
        graph_from_torch(model.eval(), (0,))
    with pytest.raises(ValueError, match=r"^batch_size must be positive, got 0"):
        graph_from_torch(model, (4,), batch_size=0)


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)).eval()
    before = {name: (tensor, tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    graph_from_torch(model, (3, 8, 8))
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert tensor is before[name][0]
        assert torch.equal(tensor, before[name][1])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not nn.modules.module._global_forward_hooks
    assert not nn.modules.module._global_forward_pre_hooks


def test_tracing_takes_no_memory_for_what_it_describes():
    with torch.device("meta"):
        model = nn.Conv2d(1000, 100_000, 7).eval()  # 19.6 GB of weights
    graph = graph_from_torch(model, (1000, 5000, 5000))
    assert graph.tensors[graph.outputs[0]].shape == (1, 100_000, 4994, 4994)


def test_other_threads_may_use_modules_meanwhile():
    other, stop = nn.Linear(4, 4).eval(), threading.Event()

    def work():
        while not stop.is_set():
            other(torch.zeros(1, 4))

    worker = threading.Thread(target=work)
    worker.start()
    try:
        graph = graph_from_torch(nn.Sequential(*(nn.Linear(4, 4) for _ in range(20))).eval(), (4,))
    finally:
        stop.set()
        worker.join()
    products = [operator for operator in graph.operators if operator.name == "aten.addmm"]
    assert [operator.module for operator in products] == [str(index) for index in range(20)]


def test_recurrent_and_attention_modules_can_be_traced():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(8, 16, batch_first=True)
            self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

        def forward(self, sequence):
            return F.normalize(self.encoder(self.lstm(sequence)[0]), dim=-1)

    graph = graph_from_torch(Recurrent().eval(), (5, 8))
    assert [graph.tensors[t].shape for t in graph.outputs] == [(1, 5, 16)]
