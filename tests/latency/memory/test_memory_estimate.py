import functools

import numpy as np
import pytest
import torch
from torch import nn

from latency.errors import TracingError
from latency.graph.operator_graph import StorageKind
from latency.graph.tracer import graph_from_torch
from latency.inference import weights_bytes
from latency.memory.estimate import CUDA_BLOCK_BYTES, estimate_peak_memory
from latency.memory.lifetimes import Lifetime, Release, lifetimes, timeline
from latency.memory.measure import allocation_peak_cpu
from latency.memory.training import trace_training_step
from search_spaces.spaces.nasbench201 import NasBench201
from search_spaces.spaces.segmentation_cell import SegmentationCell
from tests.latency.functions import Function


def estimate(function, n_elements=256, **options):
    graph = graph_from_torch(Function(function).eval(), (n_elements,))
    return estimate_peak_memory(graph, **options)


def test_a_tensor_lives_until_the_last_variable_lets_go_of_it():
    def holds(x):
        first = x + 1
        second = first + 1
        third = second + 1
        return third + 1  # first and second are still variables

    def passes_on(x):
        x = x + 1
        x = x + 1
        x = x + 1
        return x + 1

    assert estimate(holds).activations_bytes == 4 * 1024
    assert estimate(holds).timeline == (1024, 2048, 3072, 4096)
    assert estimate(passes_on).activations_bytes == 2 * 1024
    assert estimate(holds, release=Release.LAST_USE).timeline == (1024, 2048, 2048, 2048)


def test_a_list_holds_what_it_was_given():
    def encoder(x):
        features = []
        for _ in range(5):
            x = x + 1
            features.append(x)
        return features[-1] + 1

    assert estimate(encoder).activations_bytes == 6 * 1024
    assert estimate(encoder, release=Release.LAST_USE).activations_bytes == 2 * 1024


def test_views_and_in_place_operators_take_nothing():
    assert estimate(lambda x: (x + 1).relu_().view(2, -1).t().mul_(2)).activations_bytes == 1024


def test_a_view_keeps_the_whole_memory():
    def keeps_a_view(x):
        first = (x + 1)[:, :1]
        return (x + 2) * first  # 1024 + 1024 + 1024

    assert estimate(keeps_a_view).activations_bytes == 3 * 1024


def test_the_parts_add_up():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()).eval()
    found = estimate_peak_memory(graph_from_torch(model, (3, 16, 16), batch_size=2))
    assert found.weights_bytes == 4 * (8 * 27 + 8 + 8 + 8 + 8 + 8) + 8
    assert found.input_bytes == 4 * 2 * 3 * 16 * 16
    assert found.activations_bytes == pytest.approx(2 * 4 * 2 * 8 * 16 * 16, rel=0.01)
    assert found.peak_memory_estimate_bytes == found.weights_bytes + found.input_bytes + found.activations_bytes
    largest = found.live_at_peak[0]
    assert (largest.n_bytes, largest.shape, largest.kind) == (16384, (2, 8, 16, 16), StorageKind.ACTIVATION)
    assert (largest.operator, largest.module) == ("aten.convolution", "0")
    assert found.n_unknown_scratch == 0


def test_blocks_are_rounded_up():
    found = estimate(lambda x: x + 1, n_elements=129, block_bytes=CUDA_BLOCK_BYTES)  # 516 bytes
    assert (found.input_bytes, found.activations_bytes) == (1024, 1024)
    with pytest.raises(ValueError, match=r"^block_bytes must be positive, got 0"):
        estimate(lambda x: x + 1, block_bytes=0)


def test_the_timeline_is_the_sum_of_lifetimes():
    assert timeline([Lifetime(0, 10, 0, 3), Lifetime(1, 5, 1, 2), Lifetime(2, 7, 3, 4)], 4) == (10, 15, 10, 7)
    assert timeline([], 2) == (0, 0)


def test_another_order_needs_release_after_last_use():
    graph = graph_from_torch(Function(lambda x: x.exp() + x.sin()).eval(), (4,))
    found = lifetimes(graph, release=Release.LAST_USE, order=(1, 0, 2))
    assert [(life.first, life.end) for life in found] == [(0, 3), (1, 3), (2, 3)]
    with pytest.raises(ValueError, match=r"^release must be 'last_use' for another order"):
        lifetimes(graph, order=(1, 0, 2))


@pytest.mark.parametrize(("space", "size"), [(NasBench201(cells_per_stage=1), 32), (SegmentationCell(), 64)])
def test_candidates_take_what_the_profiler_sees(space, size):
    rng, image = np.random.default_rng(5), torch.zeros(1, 3, size, size)
    for _ in range(3):
        model = space.build(space.sample(rng), in_channels=3, n_classes=7, seed=0).eval()
        graph = graph_from_torch(model, (3, size, size))
        with torch.inference_mode():
            model(image)
            peak = allocation_peak_cpu(functools.partial(model, image), {o.name for o in graph.operators})
        measured = weights_bytes(model) + image.nbytes + peak.without_scratch_bytes
        assert estimate_peak_memory(graph).peak_memory_estimate_bytes == pytest.approx(measured, rel=0.01)


def training_peak(model, image, optimizer):
    def step():
        model(image).float().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    return step


@pytest.mark.parametrize(
    ("factory", "states_per_weight"),
    [
        (torch.optim.Adam, 2),
        (functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9), 1),
        (functools.partial(torch.optim.SGD, lr=0.1), 0),
    ],
    ids=["adam", "momentum", "sgd"],
)
def test_a_training_step_takes_what_the_profiler_sees(factory, states_per_weight):
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
    ).train()
    n_weights = sum(parameter.numel() for parameter in model.parameters())
    graph = trace_training_step(model, (3, 20, 20), batch_size=4, optimizer=factory)
    found = estimate_peak_memory(graph)
    image, optimizer = torch.zeros(4, 3, 20, 20), factory(model.parameters())
    peak = allocation_peak_cpu(training_peak(model, image, optimizer), {o.name for o in graph.operators})
    n_parameters = len(list(model.parameters()))
    counters = 4 * n_parameters if factory is torch.optim.Adam else 0
    assert found.bytes_by_kind[StorageKind.OPTIMIZER_STATE] == 4 * states_per_weight * n_weights + counters
    come_and_go = found.activations_bytes + found.bytes_by_kind[StorageKind.GRADIENT]
    assert come_and_go == pytest.approx(peak.without_scratch_bytes, rel=0.01)


def test_activations_are_kept_for_the_backward_pass():
    model = nn.Sequential(nn.Linear(256, 256), *(nn.Sigmoid() for _ in range(10)), nn.Linear(256, 1)).train()
    step = trace_training_step(model, (256,), batch_size=8)
    inference = graph_from_torch(model.eval(), (256,), batch_size=8)
    assert estimate_peak_memory(step).activations_bytes >= 10 * 8 * 1024
    assert estimate_peak_memory(inference).activations_bytes == 2 * 8 * 1024


def test_tracing_a_step_leaves_the_model_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trace_training_step(model, (3, 8, 8), batch_size=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_training_errors_say_what_to_do():
    frozen = nn.Linear(4, 4).requires_grad_(False)
    with pytest.raises(ValueError, match=r"^model must have parameters that require gradients"):
        trace_training_step(frozen, (4,), batch_size=1)
    with pytest.raises(TracingError, match=r"cannot trace Linear on an input of shape \(1, 5\)"):
        trace_training_step(nn.Linear(4, 4), (5,), batch_size=1)
