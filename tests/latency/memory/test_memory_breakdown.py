import pytest
import torch
from torch import nn

from latency.errors import DeviceUnavailableError
from latency.memory.breakdown import Source, memory_breakdown


def lenet():
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


N_WEIGHTS = 61_706  # LeCun et al. 1998, with 5x5 convolutions of all maps and a linear classifier


def test_an_inference_is_the_sum_of_its_parts():
    found = memory_breakdown(lenet().eval(), (1, 28, 28), batch_size=8)
    assert found["weights"] == 4 * N_WEIGHTS
    assert found["input"] == 4 * 8 * 28 * 28
    assert found["activations"] == 2 * 4 * 8 * 6 * 28 * 28  # the first convolution and its rectified result
    assert (found["unexplained"], found["gradients"], found["optimizer_state"]) == (0, 0, 0)
    outside = found["process"]
    assert found.total_bytes == found.measured_peak_bytes + outside
    assert [part.n_bytes for part in found.parts] == sorted((part.n_bytes for part in found.parts), reverse=True)


def test_a_training_step_shows_gradients_and_the_optimizer():
    model = lenet().train()
    before = [parameter.clone() for parameter in model.parameters()]
    found = memory_breakdown(model, (1, 28, 28), batch_size=8, optimizer=torch.optim.Adam)
    assert found["optimizer_state"] == 8 * N_WEIGHTS + 4 * 10  # two moments; a step counter for each parameter
    assert 0 < found["gradients"] <= 4 * N_WEIGHTS
    assert abs(found["unexplained"]) < 0.01 * found.measured_peak_bytes
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_wrong_devices_and_modes_are_refused():
    with pytest.raises(ValueError, match=r"^device must be on the CPU or CUDA, got 'meta'"):
        memory_breakdown(lenet().eval(), (1, 28, 28), device="meta")
    with pytest.raises(ValueError, match="must be in eval mode"):
        memory_breakdown(lenet().train(), (1, 28, 28))
    with pytest.raises(DeviceUnavailableError, match=r"got 'cuda:99'"):
        memory_breakdown(lenet().eval(), (1, 28, 28), device="cuda:99")


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", [None, torch.optim.Adam], ids=["inference", "training"])
def test_on_cuda_most_is_not_the_model(optimizer):
    model = lenet().train(optimizer is not None)
    found = memory_breakdown(model, (1, 28, 28), batch_size=64, device="cuda:0", optimizer=optimizer)
    assert found["context"] > 50 * 2**20
    assert found["reserve"] >= 0
    inside = [p for p in found.parts if p.name not in {"context", "libraries", "reserve"}]
    assert sum(part.n_bytes for part in inside) == found.measured_peak_bytes
    assert {part.source for part in inside} <= set(Source)
    assert found["weights"] >= 4 * N_WEIGHTS
