"""How a client talks to a server, whatever the protocol."""

from __future__ import annotations

import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from kxai.errors import ArgumentError, ServingError
from kxai.serving.signature import Signature


@final
@dataclass(frozen=True)
class Place:
    """Where a model is served.

    Attributes:
        secure: whether by TLS.
        host, port: of the server.
        prefix: of its paths, of REST alone; empty, or from a slash on.
        model: name.
        version: None stands for the newest.
        timeout: seconds.
        headers: sent with every request.
    """

    secure: bool
    host: str
    port: int
    prefix: str
    model: str
    version: int | None
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
        port = parts.port
    except (TypeError, ValueError, AttributeError):
        parts, port = urllib.parse.urlsplit(""), None
    if parts.scheme not in ports or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ArgumentError("This is no address of a server.", expected="[http[s]://]host[:port]", received=repr(url))
    return parts.scheme == "https", parts.hostname, port or ports[parts.scheme], parts.path.rstrip("/")


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
        received=str(cause),
        fix="is another service listening at this address?",
    )
