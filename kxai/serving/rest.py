"""TensorFlow Serving's REST interface."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.parse
from collections.abc import Mapping
from typing import Any, final

import numpy as np

from kxai.errors import InputError
from kxai.serving.notation import CODES, decoded, parse, text
from kxai.serving.signature import Signature, Spec
from kxai.serving.transport import Place, Transport, closed, garbled, refused, too_late, unreachable


@final
class Rest(Transport):
    """JSON over HTTP; connections are kept alive, one per thread that calls at a time.

    Args:
        place: where the model is.
        layout: ``"columns"`` or ``"rows"``.
    """

    def __init__(self, place: Place, layout: str) -> None:
        self._place, self._layout = place, layout
        kind = "labels" if isinstance(place.version, str) else "versions"
        version = "" if place.version is None else f"/{kind}/{urllib.parse.quote(str(place.version), safe='')}"
        self._path = f"{place.prefix}/v1/models/{urllib.parse.quote(place.model, safe='')}{version}"
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._closed = False

    def call(self, name: str, signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        body = f'{{"signature_name": {json.dumps(name)}, {_written(inputs, self._layout)}}}'.encode()
        count = len(next(iter(inputs.values())))
        reply = self._asked("POST", f"{self._path}:predict", body)
        try:
            columns = _columns(reply, self._layout, list(signature.outputs))
            read = {n: decoded(columns[n]) if s.dtype == "string" else columns[n] for n, s in signature.outputs.items()}
            return signature.returned(read, count)
        except (KeyError, TypeError, IndexError, InputError) as error:
            raise garbled(self._place, error) from error

    def signatures(self) -> dict[str, Signature]:
        reply = self._asked("GET", f"{self._path}/metadata")
        try:
            listed = reply["metadata"]["signature_def"]["signature_def"]
            return {name: Signature(_specs(d.get("inputs", {})), _specs(d["outputs"])) for name, d in listed.items()}
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise garbled(self._place, error) from error

    def states(self) -> list[str]:
        reply = self._asked("GET", self._path)
        try:
            return [status["state"] for status in reply["model_version_status"]]
        except (KeyError, TypeError) as error:
            raise garbled(self._place, error) from error

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _asked(self, method: str, path: str, body: bytes | None = None) -> Any:
        status, data = self._exchanged(method, path, body)
        try:
            reply = parse(data)
        except InputError as error:
            if status < 300:
                raise garbled(self._place, error) from error
            reply = data.decode(errors="replace").strip()[:500]
        if status >= 300:  # Redirections, as those of a proxy, are not followed: a request may hold secrets.
            message = reply.get("error", reply) if isinstance(reply, dict) else reply
            raise refused(self._place, str(status), str(message))
        return reply

    def _exchanged(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        connection, used = self._taken()
        try:
            try:
                response = _sent(connection, method, path, body, self._place.headers)
            except ConnectionResetError:
                # Servers end connections that were idle; calls change nothing there, so they may be repeated.
                if not used:
                    raise
                connection.close()
                response = _sent(connection, method, path, body, self._place.headers)
            reply = response.status, response.read()
        except TimeoutError as error:
            connection.close()
            raise too_late(self._place) from error
        except OSError as error:
            connection.close()
            raise unreachable(self._place, error) from error
        except http.client.HTTPException as error:
            connection.close()
            raise garbled(self._place, repr(error)) from error
        self._give_back(connection)
        return reply

    def _taken(self) -> tuple[http.client.HTTPConnection, bool]:
        """A connection, and whether it was used before."""
        with self._lock:
            if self._closed:
                raise closed()
            if self._idle:
                return self._idle.pop(), True
        kind = http.client.HTTPSConnection if self._place.secure else http.client.HTTPConnection
        return kind(self._place.host, self._place.port, timeout=self._place.timeout), False

    def _give_back(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if not self._closed and connection.sock is not None:
                self._idle.append(connection)
                return
        connection.close()


def _sent(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
) -> http.client.HTTPResponse:
    try:
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
    except (BrokenPipeError, ConnectionResetError):
        # A server that refuses a large request may close before it has read all; its reply says why.
        if connection.sock is None:
            raise
    return connection.getresponse()


def _written(inputs: Mapping[str, np.ndarray], layout: str) -> str:
    """The inputs in either layout."""
    if layout == "columns":
        return f'"inputs": {_object({name: text(array) for name, array in inputs.items()})}'
    count = len(next(iter(inputs.values())))
    samples = [{name: text(array[i : i + 1])[1:-1] for name, array in inputs.items()} for i in range(count)]
    return f'"instances": [{", ".join(map(_object, samples))}]'


def _object(written: Mapping[str, str]) -> str:
    return f"{{{', '.join(f'{json.dumps(name)}: {value}' for name, value in written.items())}}}"


def _columns(reply: Any, layout: str, names: list[str]) -> dict[str, Any]:
    """By name, what a reply holds in either layout."""
    if layout == "columns":
        return reply["outputs"] if len(names) > 1 else {names[0]: reply["outputs"]}
    if len(names) == 1:
        return {names[0]: reply["predictions"]}
    return {name: [row[name] for row in reply["predictions"]] for name in names}


def _specs(listed: Mapping[str, Any]) -> dict[str, Spec]:
    found = {}
    for name, info in listed.items():
        shape = info.get("tensor_shape", {})
        sizes = [int(dim["size"]) for dim in shape.get("dim", [])]
        known = None if shape.get("unknown_rank") else tuple(None if size < 0 else size for size in sizes)
        found[name] = Spec(CODES.get(info["dtype"], str(info["dtype"])), known)
    return found
