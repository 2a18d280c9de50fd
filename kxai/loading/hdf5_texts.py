"""How long the texts of an attribute in an HDF5 file are, found out without reading them.

An attribute holds the length and the place of each text. Many may share one place, and would become far more in
memory than they are in the file; HDF5 offers no way to ask. So the object's header is read here, as the format's
specification describes it (version 3.0, IV.A: object headers, IV.A.2.m: attribute messages).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import IO, Any

import h5py
import numpy as np

_ATTRIBUTE, _CONTINUATION = 0x0C, 0x10
_TEXT = np.dtype([("length", "<u4"), ("heap", "<u8"), ("index", "<u4")])


def lengths(stream: IO[bytes], size: int, item: Any) -> dict[str, int]:
    """The bytes of all texts in each attribute that is an array of texts.

    Args:
        stream: the file, open for reading.
        size: of the file.
        item: a group or dataset in it.

    Returns:
        Bytes by name, without attributes that are no arrays of texts.

    Raises:
        ValueError: there are such attributes and they lie otherwise than Keras writes them.
    """
    attributes = {name: item.attrs.get_id(name) for name in item.attrs}
    wanted = {name: one for name, one in attributes.items() if one.dtype.hasobject and one.shape}
    if not wanted:
        return {}
    if any(h5py.check_string_dtype(one.dtype) is None for one in wanted.values()):
        raise ValueError("attributes of other things than texts")
    try:
        found = dict(_attributes(stream, size, h5py.h5o.get_info(item.id).addr))
        return {name: _length(found[name], math.prod(one.shape)) for name, one in wanted.items()}
    except (struct.error, KeyError) as error:
        raise ValueError("attributes that do not lie at their object") from error


def _length(values: bytes, count: int) -> int:
    if len(values) < count * _TEXT.itemsize:
        raise KeyError("values that are cut off")
    return int(np.frombuffer(values, _TEXT, count)["length"].sum(dtype=np.uint64))


def _attributes(stream: IO[bytes], size: int, address: int) -> Iterator[tuple[str, bytes]]:
    """Yields name and values of the attributes in an object's header."""
    for body in _messages(stream, size, address):
        version, _, name, dtype, shape = struct.unpack_from("<BBHHH", body)
        # The first version fills each part up to eight bytes; the third says how the name is encoded.
        fill = 8 if version == 1 else 1
        begin = 9 if version == 3 else 8
        parts = [-(-part // fill) * fill for part in (name, dtype, shape)]
        yield body[begin : begin + name].rstrip(b"\0").decode(errors="replace"), body[begin + sum(parts) :]


def _messages(stream: IO[bytes], size: int, address: int) -> Iterator[bytes]:
    """Yields the attribute messages of an object's header, whose parts may lie anywhere in the file."""
    head = _read(stream, address, 32)
    new = head.startswith(b"OHDR")
    parts, kept = [_first(head, address, new)], 4 + 2 * (new and bool(head[5] & 4)) if new else 8
    while parts:
        begin, length = parts.pop()
        size -= length
        if size < 0:
            raise KeyError("a header that is larger than the file")
        part, place = _read(stream, begin, length), 0
        while place + kept <= length:
            kind, amount = struct.unpack_from("<BH" if new else "<HH", part, place)
            body = part[place + kept : place + kept + amount]
            place += kept + amount
            if kind == _ATTRIBUTE:
                yield body
            elif kind == _CONTINUATION:
                where, much = struct.unpack_from("<QQ", body)
                # A signature before it and a checksum behind.
                parts.append((where + 4, much - 8) if new else (where, much))


def _first(head: bytes, address: int, new: bool) -> tuple[int, int]:
    """Where the first messages begin, and their bytes."""
    if not new:
        return address + 16, struct.unpack_from("<I", head, 8)[0]
    # Times of changes and limits of storage are there or not.
    begin = 6 + 16 * bool(head[5] & 32) + 4 * bool(head[5] & 16)
    width = 1 << (head[5] & 3)
    return address + begin + width, int.from_bytes(head[begin : begin + width], "little")


def _read(stream: IO[bytes], begin: int, length: int) -> bytes:
    if length < 0:
        raise KeyError("a part of negative size")
    stream.seek(begin)
    return stream.read(length)
