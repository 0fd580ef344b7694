import pytest
import torch
from torch import nn

from latency.counting.complexity import count
from latency.errors import MeasurementError
from latency.graph.tracer import graph_from_torch
from latency.memory.estimate import estimate_peak_memory
from latency.profiling.plot import draw_memory, peak_lines, readable_bytes
from latency.profiling.profile import module_costs, module_times_s


class Slow(nn.Module):
    """Moves a clock by hand."""

    def __init__(self, world, seconds, inner=None):
        super().__init__()
        self.world, self.seconds, self.inner = world, seconds, inner

    def forward(self, x):
        self.world.now += self.seconds
        return self.inner(x) if self.inner else x


class World:
    now = 0.0

    def clock(self):
        return self.now


def network():
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    model.register_module("unused", nn.Linear(2, 2))
    model.forward = lambda x: model[3](model[2](model[1](model[0](x))))
    return model.eval()


def rows(depth=None, **options):
    graph = graph_from_torch(network(), (3, 4, 4))
    return module_costs(graph, count(graph), depth=depth, **options)


def test_a_row_for_each_module_in_order_of_running():
    found = rows()
    assert [row.module for row in found] == ["0.0", "0.1", "0.2", "1", "2", "3", "unused"]
    convolution, norm, relu, _, flatten, linear, unused = found
    assert (convolution.n_params, convolution.n_macs, convolution.output_shape) == (216, 216 * 16, (1, 8, 4, 4))
    assert convolution.activation_bytes == 8 * 16 * 4
    assert (norm.n_params, norm.n_other_operations) == (16, 2 * 128)
    assert (relu.activation_bytes, relu.n_other_operations) == (0, 128)  # in place
    assert flatten.activation_bytes == 0  # a view
    assert (linear.n_params, linear.n_macs, linear.output_shape) == (45, 40, (1, 5))
    assert (unused.n_params, unused.n_operators, unused.output_shape) == (6, 0, ())
    assert all(row.time_share is None for row in found)


def test_folded_rows_hold_the_sums():
    whole, folded = rows(), rows(depth=1)
    assert [row.module for row in folded] == ["0", "1", "2", "3", "unused"]
    for field in ("n_params", "n_macs", "n_other_operations", "n_operators", "activation_bytes"):
        assert sum(getattr(row, field) for row in whole) == sum(getattr(row, field) for row in folded)
    assert folded[0].output_shape == (1, 8, 4, 4)
    with pytest.raises(ValueError, match=r"^depth must be positive, got 0"):
        rows(depth=0)


def test_shares_of_time_are_of_the_sum():
    found = {row.module: row.time_share for row in rows(module_times_s={"0.0": 3.0, "3": 1.0}, depth=1)}
    assert found == {"0": 0.75, "1": 0.0, "2": 0.0, "3": 0.25, "unused": 0.0}


def test_a_module_is_charged_for_its_own_time_only():
    world = World()
    model = nn.Sequential(Slow(world, 2.0, inner=Slow(world, 5.0)), Slow(world, 1.0)).eval()
    times = module_times_s(model, (4,), n_runs=3, time_limit_s=1000, clock=world.clock)
    assert times == {"": 0.0, "0": 2.0, "0.inner": 5.0, "1": 1.0}
    assert not nn.modules.module._global_forward_hooks
    assert not nn.modules.module._global_forward_pre_hooks


def test_modules_inside_a_transformer_layer_have_times_of_their_own():
    # torch would fuse such a layer in inference: linear1 would not run and its share would be 0.
    model = nn.TransformerEncoderLayer(16, 2, dim_feedforward=32, batch_first=True).eval()
    times = module_times_s(model, (4, 16), n_runs=2)
    assert {name for name, seconds in times.items() if seconds > 0} >= {"self_attn", "linear1", "linear2", "norm1"}
    assert torch.backends.mha.get_fastpath_enabled()


def test_module_times_stop_at_their_limit_and_explain_failures():
    world = World()
    module_times_s(nn.Sequential(Slow(world, 2.0)).eval(), (4,), n_runs=100, time_limit_s=11, clock=world.clock)
    assert world.now <= 16
    with pytest.raises(MeasurementError, match=r"failed on cpu with an input of shape \(2, 5\)"):
        module_times_s(nn.Linear(4, 4).eval(), (5,), batch_size=2)


def test_the_peak_in_words_and_in_a_figure():
    model = nn.Sequential(nn.Linear(4, 1024), nn.Linear(1024, 2048), nn.Linear(2048, 2)).eval()
    estimate = estimate_peak_memory(graph_from_torch(model, (4,), batch_size=128))
    lines = peak_lines(estimate)
    assert lines[0].startswith("peak 1.50 MiB of activations at operator ")
    assert lines[1:] == ["1.00 MiB  128x2048  addmm in 1", "512.0 KiB  128x1024  addmm in 0"]
    (axes,) = draw_memory(estimate, "a $title$").axes
    assert max(axes.lines[0].get_ydata()) == 1.5
    assert list(axes.lines[1].get_xdata()) == [estimate.peak_operator]
    assert lines[1] in axes.texts[0].get_text()


def test_bytes_stand_in_the_unit_that_suits_them():
    sizes = (32, 1536, 3 * 2**20, 2**30 - 2**20, 3 * 2**29)
    assert [readable_bytes(size) for size in sizes] == ["32 B", "1.5 KiB", "3.00 MiB", "1023.00 MiB", "1.50 GiB"]


def test_memory_of_a_model_that_computes_nothing_can_be_drawn():
    estimate = estimate_peak_memory(graph_from_torch(nn.Identity().eval(), (4,)))
    draw_memory(estimate).canvas.draw()
    assert torch.get_num_threads() == 1
