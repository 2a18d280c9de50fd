"""Activation maximisation: inputs that excite a class, or a unit of an inner layer, the most."""

from kxai.maximization.maximize import ActivationMaximization
from kxai.maximization.result import Maximization

__all__ = ["ActivationMaximization", "Maximization"]
