"""What a search will cost on this machine, measured on a few sampled candidates before anything is started."""

from nas.dry_run.estimate import CostEstimate, NetworkCost, TrainingCost
from nas.dry_run.measured import estimate_costs

__all__ = ["CostEstimate", "NetworkCost", "TrainingCost", "estimate_costs"]
