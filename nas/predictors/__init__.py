"""Predictors of trained metrics: what a genotype will reach, before it is trained."""

from nas.predictors.base import Prediction, Predictor
from nas.predictors.features import FeatureEncoder, FeatureGroups
from nas.predictors.gaussian_process import GaussianProcess
from nas.predictors.trees import Trees

__all__ = ["FeatureEncoder", "FeatureGroups", "GaussianProcess", "Prediction", "Predictor", "Trees"]
