"""``kxai plan``: which node of a model gets which rule."""

from __future__ import annotations

import argparse

from kxai.cli import arguments as common
from kxai.cli import checks, table
from kxai.cli.quiet import library

NAME = "plan"
SUMMARY = "Show which rule a method gives to every node of a model."
EXAMPLES = """examples:
  kxai plan model.keras
  kxai plan model.keras --method lrp.epsilon > plan.txt
  kxai plan model.keras --method deeplift --set rule=reveal_cancel
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments.

    Args:
        parser: the command's parser.
    """
    common.add_model(parser)
    common.add_method(parser)
    common.add_settings(parser)


def run(arguments: argparse.Namespace) -> None:
    """Prints the plan, then its notes.

    Args:
        arguments: the parsed arguments.
    """
    settings = common.settings(arguments)
    checks.methods([arguments.method])
    plan = library().plan(common.load_model(arguments), arguments.method, **settings)
    table.show(["node", "kind", "rule"], plan.rows)
    for note in plan.notes:
        print(f"note: {note}")
