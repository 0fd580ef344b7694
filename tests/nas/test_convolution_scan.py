import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from nas.convolution_scan import ConvolutionKind, Finding, Verdict, all_kinds, few_kinds, scan

ROOT = Path(__file__).parents[2]
INSTRUCTIONS = {"own": {}, "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"}}


class Planted(nn.Conv2d):
    """A convolution that fails in channels_last memory."""

    fault: str

    def forward(self, x):
        if not x.is_contiguous():
            if self.fault == "crash":
                os.abort()
            elif self.fault == "hang":
                time.sleep(60)
            elif self.fault == "wrong":
                return super().forward(x) * 1.001
        return super().forward(x)


@dataclass(frozen=True)
class PlantedKind(ConvolutionKind):
    fault: str = ""

    def build(self):
        layer = Planted(self.in_channels, self.out_channels, 1)
        layer.fault = self.fault
        return layer


@pytest.mark.parametrize("verdict", Verdict)
def test_tells_what_becomes_of_gradients(verdict):
    kind = PlantedKind(3, 2, fault=verdict)
    (finding,) = scan([kind], time_limit_s=1.0 if verdict is Verdict.HANG else 60.0)
    assert (finding.kind, finding.verdict) == (kind, verdict)
    if verdict is Verdict.WRONG:
        assert finding.relative_error == pytest.approx(1e-3, rel=1e-2)
    elif verdict is Verdict.RIGHT:
        assert finding.relative_error < 1e-5
    else:
        assert finding.relative_error is None


def printed(instructions, *options):
    command = [sys.executable, "-m", "nas.convolution_scan", "--json", *options]
    environment = {**os.environ, **INSTRUCTIONS[instructions]}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
def test_gradients_of_trainings_are_right(instructions):
    found = printed(instructions, "--few")
    assert [finding["verdict"] for finding in found["as_trained"]] == ["right"] * len(few_kinds())


@pytest.mark.slow
@pytest.mark.parametrize("instructions", INSTRUCTIONS)
def test_gradients_of_trainings_are_right_for_all_kinds(instructions):
    found = printed(instructions)
    assert [finding["verdict"] for finding in found["as_trained"]] == ["right"] * len(all_kinds())


def test_all_kinds_cover_channels_threads_and_shapes():
    kinds = all_kinds()
    assert len(set(kinds)) == len(kinds)
    assert set(few_kinds()) & set(kinds)
    for n_threads in (1, 2):
        for transposed in (False, True):
            ours = [kind for kind in kinds if (kind.n_threads, kind.transposed) == (n_threads, transposed)]
            for stride in ((1, 1), (2, 2)):
                pointwise = [kind for kind in ours if kind.kernel_size == (1, 1) and kind.stride == stride]
                assert {kind.in_channels for kind in pointwise} >= set(range(1, 25))
                assert {kind.out_channels for kind in pointwise} >= set(range(1, 25))
            assert {kind.kernel_size for kind in ours} >= {(1, 1), (2, 2), (3, 3), (5, 5), (1, 3)}
            assert {kind.stride for kind in ours} >= {(1, 1), (2, 2), (3, 3), (2, 1)}
            assert (2, 2) in {kind.dilation for kind in ours}
        assert any(kind.groups > 1 and kind.n_threads == n_threads for kind in kinds)


def test_a_kind_is_the_layer_that_it_says():
    layer = ConvolutionKind(6, 4, (1, 3), (2, 1), (0, 1), (1, 1), 2).build()
    assert isinstance(layer, nn.Conv2d)
    assert layer(torch.zeros(1, 6, 8, 8)).shape == (1, 4, 4, 8)
    assert layer.weight.shape == (4, 3, 1, 3)
    assert ConvolutionKind(6, 4, (1, 1), (2, 3), transposed=True).build()(torch.zeros(1, 6, 8, 8)).shape == (
        1,
        4,
        16,
        24,
    )


def test_findings_cannot_be_changed():
    finding = Finding(ConvolutionKind(1, 1), Verdict.RIGHT, 0.0)
    with pytest.raises(AttributeError):
        finding.verdict = Verdict.WRONG
