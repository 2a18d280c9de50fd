"""A model is no larger than the weights that its file holds: found out before anything is allocated."""

from __future__ import annotations

import copy
import math
import sys
import threading
import time
from typing import Any

import keras

from kxai.errors import LoadError
from kxai.loading import keras2
from kxai.loading.request import Request

_SLACK = 2**16
"""Numbers that a model may have without any in the file, such as seeds."""
SECONDS = 120.0
"""How long a model may take to build, without its values. EfficientNetB0, of 240 layers, takes about one."""


def check(config: dict[str, Any], stored: int, request: Request) -> None:
    """Refuses a configuration that describes a larger model than the file holds weights for.

    Args:
        config: of the model, in the way of Keras 3.
        stored: bytes of weights in the file.
        request: what the caller gave.

    Raises:
        LoadError: the model is larger.
    """
    size = _Outline(keras2.placed(config), request).size()
    # Two weights fit into a byte where they are quantised to four bits.
    if size > (allowed := 2 * stored + _SLACK):
        raise LoadError(
            f"{request.path} describes a model that is larger than the weights stored with it.",
            expected=f"at most {allowed} parameters for {stored} bytes of weights",
            received=f"{size} parameters",
            fix="do not use this file, unless you trust its origin: then safe_mode=False loads it.",
        )


class _TooLong(BaseException):
    """Ends a thread, past whatever catches errors on the way."""


class _Outline:
    """A model that is built but for the values of its variables.

    In a stateless scope Keras notes which variables a layer wants and makes them later. It notes them per thread,
    so a thread of its own forgets them, together with the names that the layers took.
    """

    def __init__(self, config: dict[str, Any], request: Request) -> None:
        self._config, self._request = {**copy.deepcopy(config), "compile_config": None}, request
        self._size = 0
        self._error: BaseException | None = None

    def size(self) -> int:
        """Counts the model's parameters."""
        thread = threading.Thread(target=self._run, name="kxai-outline")
        thread.start()
        thread.join()
        if isinstance(self._error, _TooLong):
            raise LoadError(
                f"{self._request.path} describes a model that takes too long to build.",
                expected=f"at most {SECONDS:g} seconds",
                received="more, for example because a loop over very many steps is unrolled",
                fix="do not use this file, unless you trust its origin: then safe_mode=False loads it.",
            )
        if self._error is not None:
            raise self._error
        return self._size

    def _run(self) -> None:
        end = time.monotonic() + SECONDS

        def watch(*_: Any) -> None:
            if time.monotonic() > end:
                raise _TooLong

        # Every call within this thread passes here; nothing else can end it.
        sys.setprofile(watch)
        try:
            with keras.StatelessScope(initialize_variables=False):
                model = self._request.build(self._config)
                variables = model.variables if isinstance(model, keras.Layer) else []
                self._size = sum(math.prod(variable.shape) for variable in variables)
        except (Exception, _TooLong) as error:  # Raised again where the caller waits.
            sys.setprofile(None)
            self._error = error
