"""JSON text from a file that is not trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kxai.errors import LoadError

DEPTH = 200
"""How deep a configuration may be nested; a model within a model adds about six."""


def parse(text: str | bytes, path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        text: the text.
        path: the file, for the message.

    Returns:
        The data.

    Raises:
        LoadError: it is no JSON object, or is nested too deeply.
    """
    try:
        config = json.loads(text)
    except RecursionError as error:
        raise _too_deep(path) from error
    except ValueError as error:
        raise LoadError(
            f"{path} holds no configuration that can be read.",
            expected="JSON",
            received=f"{type(error).__name__}: {str(error)[:200]}",
            fix="save the model again.",
        ) from error
    if not isinstance(config, dict):
        raise LoadError(
            f"{path} holds no configuration of a model.",
            expected="a JSON object with class_name and config",
            received=f"a {type(config).__name__}",
        )
    _check_depth(config, path)
    return config


def _check_depth(config: Any, path: Path) -> None:
    level, depth = [config], 0
    while level:
        depth += 1
        if depth > DEPTH:
            raise _too_deep(path)
        parts = (part.values() if isinstance(part, dict) else part for part in level)
        level = [inner for part in parts for inner in part if isinstance(inner, (dict, list))]


def _too_deep(path: Path) -> LoadError:
    return LoadError(
        f"{path} holds a configuration that is nested too deeply.",
        expected=f"at most {DEPTH} levels",
        received="more",
        fix="do not use this file: Keras does not write such models.",
    )
