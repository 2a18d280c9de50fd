"""TensorFlow's notices at import kept away from the person at the terminal; everything else on stderr passes."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from types import ModuleType

# Written by C++ before its own log level is read, so that no environment variable silences them.
_NOTICE = re.compile(
    rb"WARNING: All log messages before absl|I\d{4} |\d{4}-\d\d-\d\d [\d:.]+: I |To enable the following instr"
)


def library() -> ModuleType:
    """Imports Keras and kxai without TensorFlow's notices.

    Returns:
        The package ``kxai``.

    Example:
        >>> library().__name__
        'kxai'
    """
    with notices_dropped():
        import kxai.backend
    return kxai


@contextlib.contextmanager
def notices_dropped() -> Iterator[None]:
    """Holds back what is written to stderr, by C++ too, and then passes on all but TensorFlow's notices.

    Example:
        >>> with notices_dropped():
        ...     pass
    """
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            held.seek(0)
            for line in held:
                if not _NOTICE.match(line):
                    os.write(2, line)
