"""The command line: ``kxai explain``, ``kxai plan``, ``kxai methods``, ``kxai maximize``,
``kxai report``, ``kxai export``.

Exit codes: 0 done, 1 an error of the work itself (told on stderr), 2 a mistake in the command line, 130 interrupted.
This file holds the parser and is the one place where errors become exit codes.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from kxai.cli import explain, export, maximize, methods, plan, report
from kxai.errors import KxaiError
from kxai.version import __version__

__all__ = ["main", "parser"]

COMMANDS = (explain, report, plan, methods, maximize, export)

_EXAMPLES = """examples:
  kxai methods
  kxai plan model.keras --method lrp.epsilon_plus
  kxai explain model.keras cat.png dog.png --preprocess signed --labels names.json -o out
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments without the program's name; default those of the process.

    Returns:
        The exit code: 0 done, 1 an error (its message is on stderr), 130 interrupted.

    Raises:
        SystemExit: with 2 for a mistake in the arguments, with 0 after ``--help`` and ``--version``.

    Example:
        >>> main(["explain", "no-such-model.keras", "x.png", "--preprocess", "raw", "-o", "out"])
        1
    """
    # Before TensorFlow is imported, and only here: in a library it would be the user's own decision.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    arguments = parser().parse_args(argv)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe (head, less) has left; writing the rest at exit would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("kxai: interrupted", file=sys.stderr)
        return 130
    except (KxaiError, OSError) as error:
        if arguments.debug:
            traceback.print_exc()
        else:
            print(f"kxai: {error}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """Builds the parser.

    Returns:
        The parser; the parsed arguments carry the command in ``run``.

    Example:
        >>> parser().parse_args(["methods"]).debug
        False
    """
    top = argparse.ArgumentParser(
        prog="kxai",
        description="Explains predictions of Keras models.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"kxai {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = commands.add_parser(
            command.NAME,
            help=command.SUMMARY,
            description=command.SUMMARY,
            epilog=command.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(sub)
        sub.add_argument("--debug", action="store_true", help="show the full traceback of an error")
        sub.set_defaults(run=command.run, usage_error=sub.error)
    return top
