"""Rules: how one node hands relevance down to its inputs."""

from kxai.rules.affine import AlphaBeta, Epsilon, Flat, Gamma, GammaOriginal, WSquare, ZBox, ZPlus
from kxai.rules.affine_base import ContributionRule, Share, TermRule, Where
from kxai.rules.attention import Bilinear, SoftmaxTaylor, Stop, ValuesTakeAll
from kxai.rules.combine import Proportional, SignalTakesAll, Uniform, WinnerTakesAll
from kxai.rules.deeplift import FunctionRule, Linear, Rescale, RevealCancel
from kxai.rules.deeplift_groups import RescaleNorm, RescaleSoftmax
from kxai.rules.deeplift_products import CrossMax, ShapleyMax, ShapleyProduct
from kxai.rules.differences import DifferenceRule, Multipliers, Parts, WholeRule
from kxai.rules.elementwise import DeconvReLU, Gradient, GuidedReLU, Pass
from kxai.rules.register import register, unregister
from kxai.rules.rule import Rule, Stabilizer, Step, quotient

__all__ = [
    "AlphaBeta",
    "Bilinear",
    "ContributionRule",
    "CrossMax",
    "DeconvReLU",
    "DifferenceRule",
    "Epsilon",
    "Flat",
    "FunctionRule",
    "Gamma",
    "GammaOriginal",
    "Gradient",
    "GuidedReLU",
    "Linear",
    "Multipliers",
    "Parts",
    "Pass",
    "Proportional",
    "Rescale",
    "RescaleNorm",
    "RescaleSoftmax",
    "RevealCancel",
    "Rule",
    "ShapleyMax",
    "ShapleyProduct",
    "Share",
    "SignalTakesAll",
    "SoftmaxTaylor",
    "Stabilizer",
    "Step",
    "Stop",
    "TermRule",
    "Uniform",
    "ValuesTakeAll",
    "WSquare",
    "Where",
    "WholeRule",
    "WinnerTakesAll",
    "ZBox",
    "ZPlus",
    "quotient",
    "register",
    "unregister",
]
