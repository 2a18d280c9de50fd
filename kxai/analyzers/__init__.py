"""Analyzers: methods bound to models."""

from kxai.analyzers.analyzer import Analyzer
from kxai.analyzers.attention import AttentionRelevance, AttentionRollout
from kxai.analyzers.backward import LRP, BackwardAnalyzer, DeepTaylor
from kxai.analyzers.cam import (
    CAM,
    AblationCAM,
    CAMAnalyzer,
    EigenCAM,
    GradCAM,
    GradCAMPlusPlus,
    GuidedGradCAM,
    HiResCAM,
    LayerCAM,
    OptiCAM,
    ScoreCAM,
    WeightedCAM,
    XGradCAM,
)
from kxai.analyzers.deeplift import DeepLIFT, DeepSHAP
from kxai.analyzers.fullgrad import FullGrad
from kxai.analyzers.gradient import Deconvnet, Gradient, GradientTimesInput, GuidedBackprop, Sensitivity
from kxai.analyzers.pattern.methods import PatternAttribution, PatternNet
from kxai.analyzers.registry import METHODS, create_analyzer, explain, methods, plan
from kxai.analyzers.sampling.influence import InternalInfluence, LayerConductance
from kxai.analyzers.sampling.noise import SmoothGrad, SmoothGradSquared, VarGrad
from kxai.analyzers.sampling.path import ExpectedGradients, IntegratedGradients

__all__ = [
    "CAM",
    "AblationCAM",
    "EigenCAM",
    "GradCAM",
    "GradCAMPlusPlus",
    "GuidedGradCAM",
    "HiResCAM",
    "LayerCAM",
    "OptiCAM",
    "ScoreCAM",
    "XGradCAM",
    "CAMAnalyzer",
    "WeightedCAM",
    "LRP",
    "METHODS",
    "Analyzer",
    "AttentionRelevance",
    "AttentionRollout",
    "BackwardAnalyzer",
    "DeepLIFT",
    "DeepSHAP",
    "DeepTaylor",
    "Deconvnet",
    "FullGrad",
    "Gradient",
    "GradientTimesInput",
    "GuidedBackprop",
    "PatternAttribution",
    "PatternNet",
    "Sensitivity",
    "ExpectedGradients",
    "IntegratedGradients",
    "InternalInfluence",
    "LayerConductance",
    "SmoothGrad",
    "SmoothGradSquared",
    "VarGrad",
    "create_analyzer",
    "explain",
    "methods",
    "plan",
]
