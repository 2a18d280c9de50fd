"""Numbers that judge explanations: small, pure functions of arrays, and metrics that apply them to explanations.

A metric gives one number per sample, in float64, and the same for a batch as for its samples one by one. Where a number
does not exist, such as the share of relevance within an empty mask, it is NaN, left out of the mean, and counted.
"""

from kxai.metrics.complexity import Entropy, entropy
from kxai.metrics.conservation import Residual, relative_residual
from kxai.metrics.correlation import RankCorrelation, spearman, spearman_matrix
from kxai.metrics.localisation import POOLINGS, RelevanceMass, RelevanceRank, chance, mass_accuracy, rank_accuracy
from kxai.metrics.metric import Measurement, Metric

__all__ = [
    "POOLINGS",
    "Entropy",
    "Measurement",
    "Metric",
    "RankCorrelation",
    "RelevanceMass",
    "RelevanceRank",
    "Residual",
    "chance",
    "entropy",
    "mass_accuracy",
    "rank_accuracy",
    "relative_residual",
    "spearman",
    "spearman_matrix",
]
