import itertools
import random

import numpy as np
import pytest
import torch
from torch import nn

from latency.graph.operator_graph import Operator, OperatorGraph, Storage, StorageKind, TensorInfo
from latency.graph.tracer import graph_from_torch
from latency.memory.dependencies import Dependencies
from latency.memory.lifetimes import Release
from latency.memory.measure import allocation_peak_cpu
from latency.memory.order import best_order, order_peak
from latency.memory.reordered import ReorderedModel
from search_spaces.spaces.nasbench201 import NasBench201
from search_spaces.spaces.segmentation_cell import SegmentationCell
from tests.latency.functions import Function


def trace(function, input_shape=(256,)):
    model = Function(function).eval()
    return model, graph_from_torch(model, input_shape)


def wide_then_narrow(x):
    """Four branches that are wide in between: one after the other they take less than side by side."""
    wide = [torch.cat([x] * 8, 1) + index for index in range(4)]
    narrow = [w[:, :256] * 2 for w in wide]
    return narrow[0] + narrow[1] + narrow[2] + narrow[3]


def random_graph(generator, n_operators):
    """A graph whose operators read one to three earlier results, of 1 to 9 bytes."""
    tensors = [TensorInfo((1,), torch.float32, 0)]
    storages = [Storage(4, StorageKind.INPUT)]
    operators = []
    for index in range(n_operators):
        n_inputs = min(index + 1, generator.randint(1, 3))
        inputs = tuple(generator.sample(range(index + 1), n_inputs))
        tensors.append(TensorInfo((1,), torch.float32, index + 1))
        storages.append(Storage(generator.randint(1, 9), StorageKind.ACTIVATION))
        operators.append(Operator("aten.add", inputs, (index + 1,), "", {}))
    return OperatorGraph(tuple(operators), tuple(tensors), tuple(storages), (0,), (n_operators,), {}, {}, 1)


def by_trying_all(graph):
    dependencies = Dependencies.of(graph)
    peaks = []
    for order in itertools.permutations(range(len(graph.operators))):
        places = {operator: at for at, operator in enumerate(order)}
        if all(
            not dependencies.predecessors[b] >> a & 1 or places[a] < places[b]
            for a, b in itertools.permutations(range(len(order)), 2)
        ):
            peaks.append(order_peak(graph, order))
    return min(peaks)


def test_the_best_order_is_that_of_trying_all():
    generator = random.Random(0)
    for _ in range(40):
        graph = random_graph(generator, 6)
        found = best_order(graph)
        assert found.is_proved
        assert found.peak_bytes == order_peak(graph, found.order) == by_trying_all(graph)


def over_all_sets(graph):
    """The smallest peak, from the best way into every set of finished operators."""
    dependencies = Dependencies.of(graph)
    size = [storage.n_bytes for storage in graph.storages]
    uses = [
        {graph.tensors[t].storage for t in (*operator.inputs, *operator.outputs)} - {0} for operator in graph.operators
    ]
    users = {s: {o for o, used in enumerate(uses) if s in used} for s in range(1, len(size))}
    kept = {graph.tensors[t].storage for t in graph.outputs}
    best = {0: 0}
    for done in range(1, 1 << len(uses)):
        ways = []
        for last in (o for o in range(len(uses)) if done >> o & 1):
            before = done & ~(1 << last)
            if before in best and not dependencies.predecessors[last] & ~before:
                ran = {o for o in range(len(uses)) if before >> o & 1}
                alive = {s for s, by in users.items() if by & ran and (s in kept or by - ran)} | uses[last]
                ways.append(max(best[before], sum(size[s] for s in alive)))
        if ways:
            best[done] = min(ways)
    return best[(1 << len(uses)) - 1]


def test_the_best_order_is_that_of_a_search_without_shortcuts():
    generator = random.Random(2)
    for _ in range(25):
        graph = random_graph(generator, 10)
        found = best_order(graph, beam_width=1)
        assert found.is_proved
        assert found.peak_bytes == order_peak(graph, found.order) == over_all_sets(graph)


@pytest.mark.parametrize("space", [NasBench201(width=4, cells_per_stage=1), SegmentationCell()], ids=lambda s: s.name)
def test_candidates_compute_the_same_in_the_best_order(space):
    rng, image = np.random.default_rng(3), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        model = space.build(space.sample(rng), in_channels=3, n_classes=5, seed=0).eval()
        graph = graph_from_torch(model, (3, 32, 32), batch_size=2)
        found = best_order(graph)
        assert found.peak_bytes <= order_peak(graph)
        with torch.inference_mode():
            assert torch.equal(model(image), ReorderedModel(model, graph, found.order)(image))


def test_branches_run_one_after_the_other():
    model, graph = trace(wide_then_narrow)
    found = best_order(graph)
    # cat and its sum are alive at once (2 x 8 KiB), beside three narrow results of which two are added up.
    assert found.is_proved
    assert order_peak(graph) == 8192 * 5
    assert found.peak_bytes == 8192 * 2 + 1024
    assert model(torch.ones(1, 256)).tolist() == ReorderedModel(model, graph, found.order)(torch.ones(1, 256)).tolist()


def test_the_reordered_model_takes_what_was_promised():
    model, graph = trace(wide_then_narrow)
    found = best_order(graph)
    reordered, image = ReorderedModel(model, graph, found.order), torch.ones(1, 256)
    names = {operator.name for operator in graph.operators}
    with torch.inference_mode():
        peak = allocation_peak_cpu(lambda: reordered(image), names)
    assert peak.without_scratch_bytes == pytest.approx(found.peak_bytes, abs=16)  # numbers become tensors of 8 bytes


def test_a_search_that_gives_up_has_a_bound_and_a_good_order():
    generator = random.Random(1)
    for _ in range(10):
        graph = random_graph(generator, 30)
        hurried, proved = best_order(graph, max_states=1, beam_width=4), best_order(graph, max_states=100_000)
        assert proved.is_proved
        assert hurried.lower_bound_bytes <= proved.peak_bytes <= hurried.peak_bytes <= order_peak(graph)
        assert hurried.peak_bytes == order_peak(graph, hurried.order)


def test_who_changes_memory_keeps_its_place():
    def changes(x):
        first = x + 1
        view = first[:, :128]
        read_before = view * 2
        first.mul_(3)
        return read_before + view

    model, graph = trace(changes)
    dependencies, names = Dependencies.of(graph), [operator.name for operator in graph.operators]
    change, before = names.index("aten.mul_"), names.index("aten.mul")
    assert dependencies.predecessors[change] >> before & 1
    assert dependencies.predecessors[len(names) - 1] >> change & 1
    image = torch.arange(256.0)[None]
    assert torch.equal(ReorderedModel(model, graph, best_order(graph).order)(image), model(image))


def test_what_reads_weights_alone_runs_when_it_is_needed():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scales = nn.ParameterList(nn.Parameter(torch.ones(1, 256)) for _ in range(12))

        def forward(self, x):
            gates = [torch.sigmoid(scale) for scale in self.scales]
            for gate in gates:
                x = x * gate
            return x

    scaled = Scaled().eval()
    graph = graph_from_torch(scaled, (256,))
    found = best_order(graph)
    assert order_peak(graph) == 13 * 1024
    assert (found.is_proved, found.peak_bytes) == (True, 3 * 1024)


def test_weights_are_shared_and_several_outputs_come_as_a_tuple():
    layer = nn.Sequential(nn.Linear(4, 4), Function(lambda x: [x, {"twice": x * 2}])).eval()
    graph = graph_from_torch(layer, (4,))
    reordered = ReorderedModel(layer, graph, range(len(graph.operators)))
    with torch.no_grad():
        layer[0].weight.fill_(1.0)
        layer[0].bias.zero_()
    first, twice = reordered(torch.ones(1, 4))
    assert (first.tolist(), twice.tolist()) == ([[4.0] * 4], [[8.0] * 4])
    assert reordered.state_dict().keys() == {"model.0.weight", "model.0.bias"}


def test_tensors_made_within_the_model_lie_on_the_input_device():
    model, graph = trace(lambda x: x + torch.ones_like(x) + x.new_zeros(256))
    reordered = ReorderedModel(model, graph, range(len(graph.operators)))
    assert reordered(torch.zeros(1, 256)).eq(1).all()


def test_wrong_orders_and_inputs_are_refused():
    model, graph = trace(lambda x: (x + 1) * 2)
    with pytest.raises(ValueError, match=r"order must hold each of the graph's 2 operators once, got \(0, 0\)"):
        ReorderedModel(model, graph, (0, 0))
    with pytest.raises(ValueError, match=r"order must run operator 0 before 1 \(aten.mul\)"):
        ReorderedModel(model, graph, (1, 0))
    with pytest.raises(ValueError, match=r"image must have the traced shape \(1, 256\), got \(1, 4\)"):
        ReorderedModel(model, graph, (0, 1))(torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"^max_states must be positive, got 0"):
        best_order(graph, max_states=0)
    constant = torch.ones(256)
    model, graph = trace(lambda x: x + constant)
    with pytest.raises(ValueError, match=r"aten.add in 'the model' reads another tensor .* register it as a buffer"):
        ReorderedModel(model, graph, (0,))


def test_only_a_torch_graph_can_run_again():
    graph = random_graph(random.Random(0), 3)
    assert graph.releases is None
    with pytest.raises(ValueError, match="must come from a torch model to run again"):
        ReorderedModel(nn.Identity(), graph, (0, 1, 2))
    assert Release("last_use") is Release.LAST_USE
