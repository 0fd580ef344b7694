"""Latency without the device: models learnt from a few readings, with an interval that holds."""

from latency.predictors.base import Encodings, LatencyPrediction, LatencyPredictor
from latency.predictors.blend import Blend
from latency.predictors.design import measured_in_rounds, most_informative
from latency.predictors.encoding import LayerEncoder
from latency.predictors.gaussian_process import GaussianProcess
from latency.predictors.layers import Layer, layers_of
from latency.predictors.lookup import Lookup, LookupTable
from latency.predictors.regression import BoostedTrees, Ridge
from latency.predictors.sequence import SequencePredictor
from latency.predictors.table import TableEncoder
from latency.predictors.transfer import KnownDevices

__all__ = [
    "Blend",
    "BoostedTrees",
    "Encodings",
    "GaussianProcess",
    "KnownDevices",
    "LatencyPrediction",
    "LatencyPredictor",
    "Layer",
    "LayerEncoder",
    "Lookup",
    "LookupTable",
    "Ridge",
    "SequencePredictor",
    "TableEncoder",
    "layers_of",
    "measured_in_rounds",
    "most_informative",
]
