"""Class activation maps: channels of a layer, weighted and added up at every position."""

from kxai.analyzers.cam.base import CAMAnalyzer
from kxai.analyzers.cam.gradient import (
    CAM,
    EigenCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    WeightedCAM,
    XGradCAM,
)
from kxai.analyzers.cam.guided import GuidedGradCAM
from kxai.analyzers.cam.optimized import OptiCAM
from kxai.analyzers.cam.scored import AblationCAM, ScoreCAM

__all__ = [
    "CAM",
    "AblationCAM",
    "CAMAnalyzer",
    "EigenCAM",
    "GradCAM",
    "GradCAMPlusPlus",
    "GuidedGradCAM",
    "HiResCAM",
    "LayerCAM",
    "OptiCAM",
    "ScoreCAM",
    "WeightedCAM",
    "XGradCAM",
]
