"""Rules: how one node hands relevance down to its inputs."""

from kxai.rules.affine import AlphaBeta, Epsilon, Flat, Gamma, GammaOriginal, WSquare, ZBox, ZPlus
from kxai.rules.affine_base import ContributionRule, Share, TermRule, Where
from kxai.rules.attention import Bilinear, SoftmaxTaylor, Stop, ValuesTakeAll
from kxai.rules.combine import Proportional, SignalTakesAll, Uniform, WinnerTakesAll
from kxai.rules.elementwise import DeconvReLU, Gradient, GuidedReLU, Pass
from kxai.rules.register import register, unregister
from kxai.rules.rule import Rule, Stabilizer, Step, quotient

__all__ = [
    "AlphaBeta",
    "Bilinear",
    "ContributionRule",
    "DeconvReLU",
    "Epsilon",
    "Flat",
    "Gamma",
    "GammaOriginal",
    "Gradient",
    "GuidedReLU",
    "Pass",
    "Proportional",
    "Rule",
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
    "WinnerTakesAll",
    "ZBox",
    "ZPlus",
    "quotient",
    "register",
    "unregister",
]
