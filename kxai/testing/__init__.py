"""Checks for your own rules, composites and analyzers: what kxai's own have to pass.

``check_rule``, ``check_composite`` and ``check_analyzer`` raise AssertionError with a message that names the check, the
case, what was expected and what was received; they need no test framework. ``models`` holds what they run on.
"""

from kxai.testing import models
from kxai.testing.analyzer_checks import check_analyzer
from kxai.testing.composite_checks import check_composite
from kxai.testing.models import Case
from kxai.testing.rule_checks import check_rule

__all__ = ["Case", "check_analyzer", "check_composite", "check_rule", "models"]
