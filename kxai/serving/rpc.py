"""TensorFlow Serving's gRPC interface."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, final

import numpy as np

from kxai.errors import InputError, MissingDependencyError
from kxai.serving.signature import Signature, Spec
from kxai.serving.transport import Place, Transport, closed, garbled, refused, too_late, unreachable
from kxai.wire import DTYPES, addressed, from_tensor, message, predict_request

# Relevance of a few images exceeds the 4 MiB that gRPC takes by default.
# Clients wait for servers to start; gRPC by itself tries less and less often, in the end every two minutes.
OPTIONS = [
    ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
    ("grpc.max_reconnect_backoff_ms", 1000), ("grpc.enable_http_proxy", 0),
]  # fmt: skip
AVAILABLE = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
_TYPES = {code: name for name, code in DTYPES.items()}


@final
class Rpc(Transport):
    """Messages over gRPC, on one channel.

    Args:
        place: where the model is.

    Raises:
        MissingDependencyError: grpcio or protobuf is not installed.
    """

    def __init__(self, place: Place) -> None:
        try:
            self._grpc = importlib.import_module("grpc")
        except ImportError as error:
            raise MissingDependencyError(
                "The package grpcio cannot be imported.",
                received=str(error),
                fix='pip install "kxai[serving]", or protocol="rest", which needs no package.',
            ) from error
        self._unreadable = importlib.import_module("google.protobuf.message").DecodeError
        self._place = place
        if place.secure:
            credentials = self._grpc.ssl_channel_credentials()
            self._channel = self._grpc.secure_channel(place.address, credentials, OPTIONS)
        else:
            self._channel = self._grpc.insecure_channel(place.address, OPTIONS)
        self._predict = self._method("PredictionService/Predict", "PredictResponse")
        self._metadata = self._method("PredictionService/GetModelMetadata", "GetModelMetadataResponse")
        self._status = self._method("ModelService/GetModelStatus", "GetModelStatusResponse")
        self._closed = False

    def call(self, name: str, signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        request = predict_request(self._place.model, name, inputs, version=self._place.version)
        outputs = self._asked(self._predict, request).outputs
        try:
            read = {name: from_tensor(outputs[name]) for name in signature.outputs if name in outputs}
            return signature.returned(read, len(next(iter(inputs.values()))))
        except InputError as error:
            raise garbled(self._place, error) from error

    def signatures(self) -> dict[str, Signature]:
        request = self._addressed("GetModelMetadataRequest")
        request.metadata_field.append("signature_def")
        packed = self._asked(self._metadata, request).metadata
        try:
            listed = message("SignatureDefMap").FromString(packed["signature_def"].value).signature_def
        except self._unreadable as error:
            raise garbled(self._place, error) from error
        return {name: Signature(_specs(d.inputs), _specs(d.outputs)) for name, d in listed.items()}

    def states(self) -> list[str]:
        reply = self._asked(self._status, self._addressed("GetModelStatusRequest"))
        return [AVAILABLE.get(status.state, str(status.state)) for status in reply.model_version_status]

    def close(self) -> None:
        self._closed = True
        self._channel.close()

    def _method(self, path: str, reply: str) -> Any:
        return self._channel.unary_unary(
            f"/tensorflow.serving.{path}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=message(reply).FromString,
        )

    def _addressed(self, name: str) -> Any:
        request = message(name)()
        addressed(request.model_spec, self._place.model, self._place.version)
        return request

    def _asked(self, method: Any, request: Any) -> Any:
        if self._closed:
            raise closed()
        headers = [(name.lower(), value) for name, value in self._place.headers.items()]
        try:
            return method(request, timeout=self._place.timeout, metadata=headers)
        except (self._grpc.RpcError, ValueError) as error:
            if self._closed:  # by another thread, meanwhile
                raise closed() from error
            if isinstance(error, ValueError):
                raise
            code, details = error.code().name, error.details() or ""
            if code == "UNAVAILABLE":
                raise unreachable(self._place, details) from error
            if code == "DEADLINE_EXCEEDED":
                raise too_late(self._place) from error
            raise refused(self._place, code, details) from error


def _specs(listed: Mapping[str, Any]) -> dict[str, Spec]:
    found = {}
    for name, info in listed.items():
        sizes = tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
        found[name] = Spec(
            _TYPES.get(info.dtype, f"type {info.dtype}"), None if info.tensor_shape.unknown_rank else sizes
        )
    return found
