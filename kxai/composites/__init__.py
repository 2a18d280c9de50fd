"""Composites: tables that say which node gets which rule."""

from kxai.composites.composite import (
    Composite,
    anything,
    convolution,
    first,
    first_convolution,
    gated,
    preprocessing,
)
from kxai.composites.plan import Plan, make_plan
from kxai.composites.presets import PRESETS, preset

__all__ = [
    "PRESETS",
    "Composite",
    "Plan",
    "anything",
    "convolution",
    "first",
    "first_convolution",
    "gated",
    "make_plan",
    "preprocessing",
    "preset",
]
