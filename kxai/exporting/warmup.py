"""Requests that warm a server up, each tried before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kxai.backend import saved_model
from kxai.backend.saved_model import Concrete
from kxai.errors import ExportError
from kxai.exporting.explaining import TARGET
from kxai.exporting.image import IMAGE, blank
from kxai.exporting.interface import Interface
from kxai.targets import PREDICTED
from kxai.wire import warmup_records


def warmup(functions: Mapping[str, Concrete], interface: Interface, x: Any) -> bytes:
    """The file of the requests, one per signature.

    Args:
        functions: by the name of their signature.
        interface: of the model.
        x: inputs of the model; None: one sample of zeros.

    Raises:
        InputError: the inputs do not fit the model.
        ExportError: a signature refuses its request; a server would not start.
    """
    inputs = interface.zeros() if x is None else interface.arrays(x)
    tried: set[int] = set()
    records = []
    for name, function in functions.items():
        request = dict(inputs) if IMAGE not in function.inputs else {IMAGE: blank(interface)}
        if TARGET in function.inputs and TARGET not in request:
            request[TARGET] = np.full(len(next(iter(request.values()))), PREDICTED, np.int32)
        if id(function) not in tried:
            _try(function, request, name)
        tried.add(id(function))
        records.append(warmup_records(name, interface.model.name, request))
    return b"".join(records)


def _try(function: Concrete, request: Mapping[str, Any], name: str) -> None:
    try:
        function(request)
    except saved_model.GraphError as error:
        raise ExportError(
            f"The signature {name!r} cannot be computed for the inputs that would warm a server up.",
            expected="inputs like those in use",
            received=saved_model.reason(error),
            fix="pass some of them as warmup=, or warmup=False to write no such requests.",
        ) from error
