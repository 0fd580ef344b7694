"""What the command line and Python code call: search, retrain, export and analyse a run, each in one function."""

from nas.api.analysing import analyse_curves, analyse_predictor, compare, diagnose, report
from nas.api.bundles import bench, bundle, evaluate, predict
from nas.api.candidates import draw, follow_retraining, retrain
from nas.api.networks import TrainedNetwork, make_teacher, pretrain
from nas.api.products import export, export_network, load_model
from nas.api.searching import expected_costs, run_search

__all__ = [
    "TrainedNetwork",
    "analyse_curves",
    "analyse_predictor",
    "bench",
    "bundle",
    "compare",
    "diagnose",
    "draw",
    "evaluate",
    "expected_costs",
    "export",
    "export_network",
    "follow_retraining",
    "load_model",
    "make_teacher",
    "predict",
    "pretrain",
    "report",
    "retrain",
    "run_search",
]
