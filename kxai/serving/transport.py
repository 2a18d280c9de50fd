"""How a client talks to a server, whatever the protocol."""

from __future__ import annotations

import re
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from kxai.errors import ArgumentError, ServingError
from kxai.serving.signature import Signature

NAME = re.compile(r"[-!#$%&'*+.^`|~\w]+", re.ASCII)
VALUE = re.compile(r"[ -~]*")


@final
@dataclass(frozen=True)
class Place:
    """Where a model is served.

    Attributes:
        secure: whether by TLS.
        host, port: of the server.
        prefix: of its paths, of REST alone; empty, or from a slash on.
        model: name.
        version: a number, or a label; None stands for the newest.
        timeout: seconds.
        headers: sent with every request.
    """

    secure: bool
    host: str
    port: int
    prefix: str
    model: str
    version: int | str | None
    timeout: float
    headers: Mapping[str, str]

    @property
    def address(self) -> str:
        """Host and port, as texts name them."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def split(url: str, ports: Mapping[str, int]) -> tuple[bool, str, int, str]:
    """Reads an address: whether by TLS, host, port, prefix.

    Args:
        url: ``[http[s]://]host[:port][/prefix]``.
        ports: where none is named, by scheme.

    Raises:
        ArgumentError: it is no such address.

    Example:
        >>> split("localhost:8501", {"http": 8501, "https": 443})
        (False, 'localhost', 8501, '')
    """
    try:
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname or "", ports[parts.scheme] if parts.port is None else parts.port
        known = bool(host.encode("idna")) and host.isprintable() and " " not in host and port > 0
    except (TypeError, ValueError, AttributeError, LookupError):
        known = False
    if not known or parts.query or parts.fragment or parts.username:
        raise ArgumentError("This is no address of a server.", expected="[http[s]://]host[:port]", received=repr(url))
    return parts.scheme == "https", host, port, urllib.parse.quote(parts.path.rstrip("/"), safe="/%")


def sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as both protocols take them.

    Raises:
        ArgumentError: they are no texts, or would not fit into a line.
    """
    wrong = not isinstance(headers, Mapping) or not all(
        isinstance(name, str) and isinstance(value, str) and NAME.fullmatch(name) and VALUE.fullmatch(value)
        for name, value in headers.items()
    )
    if wrong:
        # The values may be secrets.
        raise ArgumentError(
            "headers are no headers of a request.",
            expected="a dict of names to values, printable ASCII in one line",
            received=", ".join(map(repr, headers)) if isinstance(headers, Mapping) else type(headers).__name__,
        )
    return dict(headers)


class Transport(ABC):
    """A protocol, bound to a model on a server. Thread-safe."""

    @abstractmethod
    def call(self, name: str, signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Calls a signature with arrays that fit it.

        Raises:
            ServingError: it cannot be reached, does not answer in time, or refuses.
        """

    @abstractmethod
    def signatures(self) -> dict[str, Signature]:
        """What the model offers, by name. Raises as :meth:`call`."""

    @abstractmethod
    def states(self) -> list[str]:
        """The state of every version, in TensorFlow Serving's words. Raises as :meth:`call`."""

    @abstractmethod
    def close(self) -> None:
        """Ends all connections; there are no calls afterwards."""


def unreachable(place: Place, cause: object) -> ServingError:
    """No connection, or one that broke."""
    return ServingError(
        f"The server at {place.address} cannot be reached.",
        expected="a server that listens there",
        received=str(cause) or type(cause).__name__,
        fix="is it running, and is this its port for this protocol? TF Serving's are 8501 (REST) and 8500 (gRPC).",
    )


def too_late(place: Place) -> ServingError:
    """No reply in time."""
    return ServingError(
        f"The server at {place.address} did not answer in time.",
        expected=f"a reply within {place.timeout:g} s",
        received="none",
        fix="a larger timeout, or a smaller batch_size.",
    )


def refused(place: Place, code: str, message: str) -> ServingError:
    """A reply that is an error."""
    return ServingError(
        f"The server at {place.address} refused a request for the model {place.model!r} ({code}).",
        code=code,
        received=message or "no message",
    )


def garbled(place: Place, cause: object) -> ServingError:
    """A reply that is no reply."""
    return ServingError(
        f"The server at {place.address} sent something that is no reply of TensorFlow Serving.",
        code="UNREADABLE",
        received=str(cause),
        fix="is another service listening at this address?",
    )


def closed() -> ServingError:
    """A call after :meth:`Transport.close`."""
    return ServingError("This client was closed.", code="CLOSED", fix="make another one.")
