"""Peak memory of a model: measured, estimated, made smaller by the order of operators, and explained."""

from latency.memory.breakdown import MemoryBreakdown, MemoryPart, memory_breakdown
from latency.memory.estimate import CUDA_BLOCK_BYTES, LiveTensor, MemoryEstimate, estimate_peak_memory
from latency.memory.lifetimes import Lifetime, Release, lifetimes
from latency.memory.order import OperatorOrder, best_order, order_peak
from latency.memory.placement import Fit, Placement, place_offline, place_online
from latency.memory.reordered import ReorderedModel
from latency.memory.training import trace_training_step

__all__ = [
    "CUDA_BLOCK_BYTES",
    "Fit",
    "Lifetime",
    "LiveTensor",
    "MemoryBreakdown",
    "MemoryEstimate",
    "MemoryPart",
    "OperatorOrder",
    "Placement",
    "Release",
    "ReorderedModel",
    "best_order",
    "estimate_peak_memory",
    "lifetimes",
    "memory_breakdown",
    "order_peak",
    "place_offline",
    "place_online",
    "trace_training_step",
]
