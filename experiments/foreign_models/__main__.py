"""Are networks and files of others counted whole? timm's, transformers', and ONNX's own test cases."""

import logging
import tempfile
import traceback
import warnings
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from experiments.common import parser, report
from experiments.foreign_models.networks import ForeignNetwork, foreign_networks
from experiments.foreign_models.onnx_files import node_cases, written_kinds
from latency.counting.complexity import Complexity, count_model
from latency.errors import LatencyError
from latency.inference import example_input
from nas.errors import InputError
from nas.profiling.profile import onnx_target, profile


def compare_networks(networks: list[ForeignNetwork]) -> dict[str, Any]:
    """Count each network and compare it with torch's counter, which watches it run."""
    n_whole = n_equal = 0
    explained: dict[str, Counter[str]] = {}
    failed: dict[str, str] = {}
    for network in networks:
        try:
            model = network.build()
            shape = network.input_shape or _own_input_shape(model)
            found = count_model(model, shape, dtype=network.dtype)
            n_flops = _flops(model, shape, network.dtype)
        except Exception as error:  # noqa: BLE001 - what goes wrong with one network is its result
            failed[network.name] = f"{type(error).__name__}: {error}"
            continue
        n_whole += not found.is_partial
        unseen = _unseen_by_torch(found)
        difference = n_flops - 2 * found.n_macs
        if found.is_partial:
            failed[network.name] = f"no formula for {', '.join(found.uncounted)}"
        elif difference == 0:
            n_equal += 1
        elif difference == -2 * sum(unseen.values()):
            for operator, n_macs in unseen.items():
                explained.setdefault(operator, Counter()).update(n_models=1, n_macs=n_macs)
        else:
            failed[network.name] = f"{2 * found.n_macs} FLOPs here, {n_flops} by torch's counter"
    return {
        "n_models": len(networks),
        "n_whole": n_whole,
        "n_equal": n_equal,
        "explained": {operator: dict(counts) for operator, counts in explained.items()},
        "failed": failed,
    }


def _own_input_shape(model: Any) -> tuple[int, ...]:
    return tuple(model.default_cfg["input_size"])


def _flops(model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> int:
    image = example_input((1, *shape), torch.device("cpu"), torch.float32)
    image = image if dtype.is_floating_point else torch.zeros(1, *shape, dtype=dtype)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    return int(counter.get_total_flops())


def _unseen_by_torch(found: Complexity) -> dict[str, int]:
    """Return the multiply-adds of operators that torch's counter knows nothing of."""
    return {
        name: n_macs
        for name, n_macs in found.macs_by_operator.items()
        if getattr(torch.ops.aten, name.removeprefix("aten.")) not in flop_registry
    }


def profile_files(arguments: Namespace) -> dict[str, Any]:
    """Profile each file as `nas profile` does, without timing it."""
    outcomes: Counter[str] = Counter()
    uncounted: Counter[str] = Counter()
    tracebacks: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, path in (*node_cases(Path(folder), arguments.n_files), *written_kinds(Path(folder))):
            outcomes["n_files"] += 1
            try:
                found = profile(onnx_target(path, None), {})
            except (InputError, LatencyError):
                outcomes["n_refused"] += 1
            except Exception:  # noqa: BLE001 - counted, and shown
                outcomes["n_tracebacks"] += 1
                tracebacks[name] = traceback.format_exc(limit=-1)
            else:
                outcomes["n_refused" if found.complexity is None else "n_profiled"] += 1
                if found.complexity is not None and found.complexity.is_partial:
                    outcomes["n_partial"] += 1
                    uncounted.update(found.complexity.uncounted)
    keys = ("n_files", "n_profiled", "n_partial", "n_refused", "n_tracebacks")
    return {key: outcomes[key] for key in keys} | {
        "uncounted": dict(sorted(uncounted.items())),
        "tracebacks": tracebacks,
    }


def main() -> None:
    """Compare and report."""
    arguments = _arguments()
    warnings.simplefilter("ignore")  # of the libraries
    logging.disable(logging.WARNING)
    networks = list(foreign_networks(arguments.n_timm, arguments.n_transformers))
    report(compare_networks(networks) | profile_files(arguments), arguments)


def _arguments() -> Namespace:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--n-timm", type=int, default=200, help="networks of timm, the smallest first")
    arguments.add_argument("--n-transformers", type=int, default=20, help="networks of transformers")
    arguments.add_argument("--n-files", type=int, default=None, help="ONNX's node cases; all of them unless told")
    return arguments.parse_args()


if __name__ == "__main__":
    main()
