"""A client of a running TensorFlow Serving."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, final

import numpy as np

from kxai.arguments import check_integer, check_number
from kxai.errors import ArgumentError, InputError, ServingError, TargetError, UnknownNameError
from kxai.explanation import Explanation
from kxai.serving.rest import Rest
from kxai.serving.rpc import Rpc
from kxai.serving.signature import DEFAULT, EXPLAIN, TARGET, Signature, regular
from kxai.serving.transport import Place, Transport, sendable, split

PORTS = {"rest": {"http": 8501, "https": 443}, "grpc": {"http": 8500, "https": 443}}
LAYOUTS = ("columns", "rows")
LONGEST = 1e6
FIXED = "fixed in the export"
"""The target of an explanation that only the export knows, as it is no class."""

_RELEVANCE = "relevance"
NEEDED = {"score", "residual"}


@final
class Client:
    """Predictions and explanations from a server that runs what :func:`kxai.export` wrote.

    Only NumPy and the standard library are needed, for gRPC also ``kxai[serving]``. Thread-safe; connections are kept.
    A request is repeated in one case: a kept connection turns out to be closed before a byte of the reply came.
    Connections are direct, whatever proxies the environment names; TLS checks the server's certificate by the system's
    authorities (``SSL_CERT_FILE`` names others, for gRPC ``GRPC_DEFAULT_SSL_ROOTS_FILE_PATH``).
    What the model's signatures are is asked once, and again by :meth:`metadata`.

    Args:
        url: ``[http[s]://]host[:port][/prefix]``; ports default to TF Serving's, 8501 (REST) and 8500 (gRPC), or 443
            for https, which means TLS with either protocol.
        model: name of the model.
        version: number of the version, or a label that the server's configuration gives to one, such as "stable"; None
            (default): the newest that is served.
        protocol: ``"rest"`` (default), or ``"grpc"``, which is quicker and carries every type.
        timeout: seconds, > 0, at most 1e6, after which a request is given up, of REST without a byte; default 60.
        batch_size: samples per request, >= 1, default 32.
        layout: of REST's JSON, ``"columns"`` (default; an array per tensor) or ``"rows"`` (an object per sample).
        headers: sent with every request, for instance ``{"Authorization": "Bearer ..."}``; gRPC's metadata.

    Raises:
        ArgumentError: an argument is outside its range. MissingDependencyError: ``kxai[serving]`` is not installed.

    Example:
        >>> with Client("localhost:1", "digits", timeout=1) as client:
        ...     client.ready()
        False
    """

    def __init__(
        self, url: str, model: str, version: int | str | None = None, protocol: str = "rest", *, timeout: float = 60.0,
        batch_size: int = 32, layout: str | None = None, headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(protocol, str) or protocol not in PORTS:
            raise UnknownNameError("protocol", str(protocol), PORTS)
        if not _is_name(model):
            raise ArgumentError("model names a model of the server.", expected="a text", received=repr(model))
        if version is not None and not _is_name(version):
            version = check_integer("version", version, least=0, most=2**63 - 1, also="a label or None")
        timeout = check_number("timeout", timeout, above=0, most=LONGEST, unit="seconds")
        batch_size = check_integer("batch_size", batch_size)
        if layout is not None and (layout not in LAYOUTS or protocol == "grpc"):
            fitting = "None, for gRPC has no JSON" if protocol == "grpc" else f"one of {', '.join(LAYOUTS)}"
            raise ArgumentError("layout is out of range.", expected=fitting, received=repr(layout))
        secure, host, port, prefix = split(url, PORTS[protocol])
        if prefix and protocol == "grpc":
            raise ArgumentError("gRPC has no paths.", expected="[http[s]://]host[:port]", received=repr(url))
        place = Place(secure, host, port, prefix, model, version, timeout, sendable({} if headers is None else headers))
        self._place, self._protocol, self._batch_size = place, protocol, batch_size
        self._transport: Transport = Rpc(place) if protocol == "grpc" else Rest(place, layout or LAYOUTS[0])
        self._known: dict[str, Signature] | None = None
        self._lock = threading.Lock()

    def predict(self, inputs: Any, signature: str = DEFAULT) -> dict[str, np.ndarray]:
        """Calls a signature.

        Args:
            inputs: dict of arrays by the names of its inputs, ``(batch, ...)`` each; an array if there is only one.
                Numbers are converted to the type that the signature has.
            signature: default ``serving_default``, the model's outputs; ``explain_image``, for instance, takes
                ``image_bytes`` and ``target``.

        Returns:
            The outputs by name, ``(batch, ...)`` each; strings are arrays of bytes objects, bfloat16 becomes float32.

        Raises:
            UnknownNameError: there is no such signature. InputError: the inputs do not fit it.
            ServingError: the server cannot be reached, does not answer in time, or refuses.
        """
        return self._called(signature, inputs, finite=False)

    def explain(self, inputs: Any, target: Any = None, method: str | None = None) -> Explanation:
        """Explains the model's outputs for a batch.

        Args:
            inputs: dict of arrays by the model's names of its inputs, ``(batch, ...)`` each; an array if there is only
                one. Finite.
            target: None (the predicted class, or what was fixed when the model was exported), an int, or ints, one per
                sample; -1 means the predicted class, too.
            method: one of those that were exported; None (default): the first of them.

        Returns:
            Explanation: relevance is an array, or for several inputs a dict by name; so are the outputs. ``base`` is
            what score, relevance and residual leave, up to rounding.

        Raises:
            UnknownNameError: the method was not exported. InputError, TargetError: inputs or target do not fit.
            ServingError: the server cannot be reached, does not answer in time, or refuses.
            NumericalError: relevance is not finite.
        """
        name = EXPLAIN if method is None else f"{EXPLAIN}_{str(method).replace('.', '_')}"
        signature = self._signature(name, "signature" if method is None else "method")
        if not signature.outputs.keys() >= NEEDED:
            raise ServingError(
                f"The signature {name!r} is none that kxai.export wrote.",
                expected=f"outputs {', '.join(sorted(NEEDED))} and relevance",
                received=", ".join(signature.outputs),
            )
        given = self._named(inputs, [key for key in signature.inputs if key != TARGET])
        if not given or TARGET in given:
            names = ", ".join(key for key in signature.inputs if key != TARGET)
            raise InputError("The inputs are not the model's.", expected=names, received=", ".join(given) or "none")
        if TARGET in signature.inputs:
            shape = np.shape(regular("inputs", next(iter(given.values()))))
            given[TARGET] = _targets(target, shape[0] if shape else 1)
        elif target is not None:
            raise TargetError(
                "The export explains one target, and no other.",
                expected="None",
                received=repr(target),
                fix="kxai.export without a target makes the class an input.",
            )
        outputs = self._called(name, given, finite=True)
        config = {"model": self._place.model, "signature": name, "server": self._place.address}
        return _explanation(outputs, {**config, **({"method": method} if method else {})})

    def metadata(self) -> dict[str, Signature]:
        """Asks which signatures the model has, by name.

        Raises:
            ServingError: the server cannot be reached, does not answer in time, or refuses.
        """
        known = self._transport.signatures()
        with self._lock:
            self._known = known
        return dict(known)

    def ready(self) -> bool:
        """Asks whether the server runs and the model (its version or label, if one was named) can be called.

        Raises:
            ServingError: the server answers with another error than that there is no such model, or what answers is no
                TensorFlow Serving; or this client was closed.
        """
        labelled = isinstance(self._place.version, str)
        try:
            # A server tells the states of versions whatever the label; who asks for signatures needs it.
            return bool(self._transport.signatures()) if labelled else "AVAILABLE" in self._transport.states()
        except ServingError as error:
            if error.code in ("", "404", "NOT_FOUND") or (labelled and error.code in ("400", "INVALID_ARGUMENT")):
                return False
            raise

    def close(self) -> None:
        """Ends the connections."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        version = "" if self._place.version is None else f", version={self._place.version!r}"
        return f"Client({self._place.address!r}, {self._place.model!r}{version}, protocol={self._protocol!r})"

    def _signature(self, name: str, kind: str = "signature") -> Signature:
        with self._lock:
            known = self._known
        signatures = self.metadata() if known is None else known
        if not isinstance(name, str) or name not in signatures:
            raise UnknownNameError(kind, str(name), signatures, fix="kxai.export writes a signature per method.")
        return signatures[name]

    def _named(self, inputs: Any, names: list[str]) -> dict[str, Any]:
        if isinstance(inputs, Mapping):
            return dict(inputs)
        if len(names) != 1:
            raise ArgumentError(
                "The model has several inputs.",
                expected=f"a dict of {', '.join(names)}",
                received=type(inputs).__name__,
            )
        return {names[0]: inputs}

    def _called(self, name: str, inputs: Any, *, finite: bool) -> dict[str, np.ndarray]:
        signature = self._signature(name)
        arrays = signature.checked(self._named(inputs, list(signature.inputs)), finite=finite)
        count = len(next(iter(arrays.values())))
        parts = [
            self._transport.call(
                name, signature, {key: a[start : start + self._batch_size] for key, a in arrays.items()}
            )
            for start in range(0, count, self._batch_size)
        ]
        return {key: np.concatenate([part[key] for part in parts]) for key in signature.outputs}


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and bool(value)


def _targets(target: Any, count: int) -> np.ndarray:
    if target is None:
        return np.full(count, -1, np.int32)
    given = regular("target", target)
    if given.dtype.kind not in "iu" or given.shape not in ((), (count,)) or (given.size and given.min() < -1):
        raise TargetError(
            "A server explains classes.",
            expected=f"None, an int >= -1, or {count} of them",
            received=repr(target) if given.ndim == 0 else f"{given.dtype} {given.shape}",
            fix="other targets need the model itself: kxai.create_analyzer(method, model).explain(x, target).",
        )
    return np.broadcast_to(given, (count,))


def _explanation(outputs: dict[str, np.ndarray], config: dict[str, Any]) -> Explanation:
    left = dict(outputs)
    target, score, residual = left.pop(TARGET, FIXED), left.pop("score"), left.pop("residual")
    relevance = {name: left.pop(name) for name in outputs if name == _RELEVANCE or name.startswith(f"{_RELEVANCE}_")}
    total = sum(part.reshape(len(score), -1).sum(axis=1, dtype=np.float64) for part in relevance.values())
    single = relevance.get(_RELEVANCE) if len(relevance) == 1 else None
    return Explanation(
        relevance={name.removeprefix(f"{_RELEVANCE}_"): r for name, r in relevance.items()}
        if single is None
        else single,
        outputs=next(iter(left.values())) if len(left) == 1 else left,
        target=target,
        score=score,
        base=score.astype(np.float64) - total - residual,
        config=config,
    )
