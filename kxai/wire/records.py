"""Files of records as TensorFlow writes them, and the requests that warm a server up."""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping
from typing import Any

from kxai.wire.messages import message
from kxai.wire.tensors import predict_request

POLYNOMIAL = 0x82F63B78  # of CRC-32C (Castagnoli), bits reversed
MASK = 0xA282EAD8


def warmup_records(signature: str, model_name: str, inputs: Mapping[str, Any]) -> bytes:
    """A request that TF Serving replays when it loads a model, in the form of its warm-up file.

    The file ``assets.extra/tf_serving_warmup_requests`` of a version holds up to 1000 of these, one after the other.

    Args:
        signature: name of the signature that is called.
        model_name: the model's name; TF Serving does not look at it here.
        inputs: arrays by the names of the signature's inputs, all with the same first dimension.

    Returns:
        One record.

    Raises:
        MissingDependencyError: the package protobuf is not installed.

    Example:
        >>> import numpy as np
        >>> len(warmup_records("explain", "digits", {"x": np.zeros((1, 4), np.float32), "target": np.int32([-1])}))
        102
    """
    log = message("PredictionLog")()
    log.predict_log.request.CopyFrom(predict_request(model_name, signature, inputs))
    return framed(log.SerializeToString(deterministic=True))


def framed(data: bytes) -> bytes:
    """One record of a TFRecord file: length, its checksum, the data, their checksum.

    Args:
        data: the record.

    Returns:
        The record as it stands in the file.

    Example:
        >>> framed(b"").hex()
        '000000000000000029039807d8ea82a2'
    """
    length = struct.pack("<Q", len(data))
    return length + _masked_checksum(length) + data + _masked_checksum(data)


def _masked_checksum(data: bytes) -> bytes:
    table = _table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    # Rotated and shifted, so that checksums of data that hold checksums stay good.
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + MASK) & 0xFFFFFFFF)


@functools.cache
def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table
