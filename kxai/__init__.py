"""kxai explains the decisions of Keras 3 models: which inputs they came from."""

try:
    import tensorflow as _tensorflow  # noqa: F401
except ImportError as error:
    from kxai.errors import MissingDependencyError

    raise MissingDependencyError(
        "kxai needs TensorFlow, which is not installed.",
        fix="pip install 'kxai[cpu]' (CPU) or pip install 'kxai[gpu]' (NVIDIA GPU).",
    ) from error

from kxai import plots, rules
from kxai.analyzers import (
    LRP,
    Analyzer,
    DeepTaylor,
    Deconvnet,
    Gradient,
    GradientTimesInput,
    GuidedBackprop,
    Sensitivity,
    create_analyzer,
    explain,
    methods,
    plan,
)
from kxai.composites import Composite, Plan, preset
from kxai.errors import KxaiError, KxaiWarning
from kxai.explanation import Explanation
from kxai.graph.graph import Kind
from kxai.loading import load
from kxai.targets import Contrast
from kxai.version import __version__

__all__ = [
    "LRP",
    "Analyzer",
    "Composite",
    "Contrast",
    "DeepTaylor",
    "Deconvnet",
    "Explanation",
    "Gradient",
    "GradientTimesInput",
    "GuidedBackprop",
    "Kind",
    "KxaiError",
    "KxaiWarning",
    "Plan",
    "Sensitivity",
    "__version__",
    "create_analyzer",
    "explain",
    "load",
    "methods",
    "plan",
    "plots",
    "preset",
    "rules",
]
