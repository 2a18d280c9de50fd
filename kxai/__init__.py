"""kxai explains the decisions of Keras 3 models: which inputs they came from.

Names are imported when they are first used, so that ``import kxai`` is quick and starts neither Keras nor TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kxai.version import __version__

if TYPE_CHECKING:
    from kxai import callbacks, exporting, metrics, plots, references, reports, rules, serving
    from kxai.analyzers import (
        CAM,
        LRP,
        AblationCAM,
        Analyzer,
        AttentionRelevance,
        AttentionRollout,
        Deconvnet,
        DeepLIFT,
        DeepSHAP,
        DeepTaylor,
        EigenCAM,
        ExpectedGradients,
        FullGrad,
        GradCAM,
        GradCAMPlusPlus,
        Gradient,
        GradientTimesInput,
        GuidedBackprop,
        GuidedGradCAM,
        HiResCAM,
        IntegratedGradients,
        InternalInfluence,
        LayerCAM,
        LayerConductance,
        OptiCAM,
        PatternAttribution,
        PatternNet,
        ScoreCAM,
        Sensitivity,
        SmoothGrad,
        SmoothGradSquared,
        VarGrad,
        XGradCAM,
        create_analyzer,
        explain,
        methods,
        plan,
    )
    from kxai.composites import Composite, Plan, preset
    from kxai.errors import KxaiError, KxaiWarning
    from kxai.explanation import Explanation
    from kxai.exporting import export
    from kxai.graph.graph import Kind
    from kxai.loading import load
    from kxai.maximization import ActivationMaximization, Maximization
    from kxai.reports import Report, report
    from kxai.targets import Contrast

_HOMES = {
    "kxai.analyzers": (
        "LRP Analyzer AttentionRelevance AttentionRollout DeepTaylor Deconvnet FullGrad Gradient GradientTimesInput "
        "GuidedBackprop PatternAttribution PatternNet Sensitivity create_analyzer explain methods plan "
        "ExpectedGradients IntegratedGradients InternalInfluence LayerConductance SmoothGrad SmoothGradSquared VarGrad "
        "AblationCAM CAM EigenCAM GradCAM GradCAMPlusPlus GuidedGradCAM HiResCAM LayerCAM OptiCAM ScoreCAM XGradCAM "
        "DeepLIFT DeepSHAP"
    ),
    "kxai.composites": "Composite Plan preset",
    "kxai.errors": "KxaiError KxaiWarning",
    "kxai.explanation": "Explanation",
    "kxai.exporting": "export",
    "kxai.graph.graph": "Kind",
    "kxai.loading": "load",
    "kxai.maximization": "ActivationMaximization Maximization",
    "kxai.reports": "Report report",
    "kxai.targets": "Contrast",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}
_MODULES = ("callbacks", "exporting", "metrics", "plots", "references", "reports", "rules", "serving", "testing")

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
    "LRP",
    "ActivationMaximization",
    "Analyzer",
    "AttentionRelevance",
    "AttentionRollout",
    "Composite",
    "Contrast",
    "DeepLIFT",
    "DeepSHAP",
    "DeepTaylor",
    "Deconvnet",
    "Explanation",
    "FullGrad",
    "Gradient",
    "GradientTimesInput",
    "GuidedBackprop",
    "Kind",
    "KxaiError",
    "KxaiWarning",
    "Maximization",
    "PatternAttribution",
    "PatternNet",
    "Plan",
    "Report",
    "Sensitivity",
    "ExpectedGradients",
    "IntegratedGradients",
    "InternalInfluence",
    "LayerConductance",
    "SmoothGrad",
    "SmoothGradSquared",
    "VarGrad",
    "__version__",
    "callbacks",
    "create_analyzer",
    "explain",
    "export",
    "exporting",
    "load",
    "methods",
    "metrics",
    "plan",
    "plots",
    "preset",
    "references",
    "report",
    "reports",
    "rules",
    "serving",
    "testing",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return _module(f"kxai.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'kxai' has no attribute {name!r}")
    value = getattr(_module(_HOME[name]), name)
    globals()[name] = value
    return value


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        # Keras, which most modules import first, does not say what to do about a TensorFlow that is not there.
        importlib.import_module("kxai.backend")
        raise


def __dir__() -> list[str]:
    return sorted(__all__)
