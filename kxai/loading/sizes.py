"""A model is no larger than the weights that its file holds: found out before anything is allocated."""

from __future__ import annotations

import ctypes
import math
import threading
from dataclasses import replace
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
    size = _Outline(_unvalued(keras2.placed(config)), request).size()
    # Two weights fit into a byte where they are quantised to four bits.
    if size > (allowed := 2 * stored + _SLACK):
        raise LoadError(
            f"{request.path} describes a model that is larger than the weights stored with it.",
            expected=f"at most {allowed} parameters for {stored} bytes of weights",
            received=f"{size} parameters",
            fix="do not use this file, unless you trust its origin: then safe_mode=False loads it.",
        )


def _unvalued(config: Any) -> Any:
    """A copy in which every ``Normalization`` is a ``LayerNormalization``, which has variables of the same shapes.

    The former reads its variables while it is built, which fills them.
    """
    if isinstance(config, list):
        return [_unvalued(part) for part in config]
    if not isinstance(config, dict):
        return config
    settings = config.get("config")
    if config.get("class_name") == "Normalization" and isinstance(settings, dict) and settings.get("axis") is not None:
        kept = {key: settings[key] for key in ("name", "axis", "batch_input_shape") if key in settings}
        others = {key: part for key, part in config.items() if key != "build_config"}
        return {**others, "class_name": "LayerNormalization", "module": "keras.layers", "config": kept}
    return {key: _unvalued(part) for key, part in config.items()}


class _TooLong(BaseException):
    """Ends a thread, past whatever catches errors on the way."""


class _Outline:
    """A model that is built but for the values of its variables.

    In a stateless scope Keras notes which variables a layer wants and makes them later. It notes them per thread,
    so a thread of its own forgets them, together with the names that the layers took.
    """

    def __init__(self, config: dict[str, Any], request: Request) -> None:
        self._config = {**config, "compile_config": None}
        # What is known in the caller's thread alone has to be carried over.
        self._request = replace(request, custom_objects=request.objects)
        self._begun, self._built = threading.Event(), threading.Event()
        self._guard = threading.Lock()  # held where it is settled that the model is built
        self._size = 0
        self._error: BaseException | None = None

    def size(self) -> int:
        """Counts the model's parameters."""
        thread = threading.Thread(target=self._run, name="kxai-outline")
        thread.start()
        try:
            self._built.wait(SECONDS)
        finally:  # also if the caller is interrupted
            late = self._stopped(thread)
        if late:
            raise LoadError(
                f"{self._request.path} describes a model that takes too long to build.",
                expected=f"at most {SECONDS:g} seconds",
                received="more, for example because of very many layers or a layer that loops",
                fix="do not use this file, unless you trust its origin: then safe_mode=False loads it.",
            )
        if isinstance(self._error, ValueError) and "stateless scope" in str(self._error):
            raise LoadError(
                f"{self._request.path} describes a model that cannot be measured before it is built.",
                expected="layers of your own that make their variables by add_weight and an initializer",
                received="a variable that is made of values",
                fix="change the layer; or, only if you trust the origin of this file: load it with safe_mode=False.",
            ) from self._error
        if self._error:
            raise self._error
        return self._size

    def _stopped(self, thread: threading.Thread) -> bool:
        """Ends the thread; whether it was still building."""
        self._begun.wait()
        late = False
        while not self._built.is_set():
            with self._guard:
                if not self._built.is_set():
                    late = True
                    _raise_within(thread.ident or 0, ctypes.py_object(_TooLong))
            self._built.wait(10)  # and then again, should something have caught it
        thread.join()
        return late

    def _run(self) -> None:
        """Builds, once, and then is out of reach of the caller's exception: a thread that ends must not meet it."""
        begun = False
        while not self._built.is_set():
            try:
                if not begun:
                    begun = True
                    self._begun.set()
                    self._build()
                with self._guard:
                    _raise_within(threading.get_ident(), None)  # what was on its way
                    self._built.set()
            except _TooLong:
                pass  # The caller knows.

    def _build(self) -> None:
        try:
            with keras.StatelessScope(initialize_variables=False):
                model = self._request.build(self._config)
                variables = model.variables if isinstance(model, keras.Layer) else []
                self._size = sum(math.prod(variable.shape) for variable in variables)
        except _TooLong:
            raise
        except BaseException as error:  # Raised again where the caller waits.
            self._error = error


def _raise_within(thread: int, error: Any) -> None:
    """Lets a thread meet an exception at its next step, in place of the one that it has not met yet; None: no more."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)
