"""What the command line and Python code call: search, retrain, export and analyse a run, each in one function."""

from nas.api.analysing import analyse_curves, analyse_predictor
from nas.api.candidates import draw, export, retrain
from nas.api.networks import TrainedNetwork, make_teacher, pretrain
from nas.api.searching import expected_costs, run_search

__all__ = [
    "TrainedNetwork",
    "analyse_curves",
    "analyse_predictor",
    "draw",
    "expected_costs",
    "export",
    "make_teacher",
    "pretrain",
    "retrain",
    "run_search",
]
