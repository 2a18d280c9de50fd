"""``kxai methods``: what can be asked for."""

from __future__ import annotations

import argparse

from kxai.cli import table
from kxai.cli.quiet import library

NAME = "methods"
SUMMARY = "List the explanation methods."
EXAMPLES = """examples:
  kxai methods
  kxai methods | grep lrp
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds nothing: the command has no arguments of its own.

    Args:
        parser: the command's parser.
    """


def run(arguments: argparse.Namespace) -> None:
    """Prints every method with its description.

    Args:
        arguments: the parsed arguments.
    """
    table.show(["method", "description"], sorted(library().methods().items()))
