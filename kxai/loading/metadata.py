"""``keras_metadata.pb``, in which Keras 2 describes the layers of a SavedModel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kxai.errors import LoadError
from kxai.loading import texts

NAME = "keras_metadata.pb"
_MODELS = {"_tf_keras_network", "_tf_keras_sequential"}
# Fields of the message SavedObject, and of SavedMetadata that lists them.
_NODES, _PATH, _IDENTIFIER, _METADATA = 1, 3, 4, 5


@dataclass(frozen=True)
class Described:
    """A model that Keras 2 described.

    Args:
        config: class_name and config of the model.
        names: from the path of a layer, such as ``"root.layer-1"``, to its name.
    """

    config: dict[str, Any]
    names: dict[str, str]


def read(folder: Path) -> Described | None:
    """Reads the description of a functional or sequential model.

    Args:
        folder: of the SavedModel.

    Returns:
        The description; None if there is none, as for a model that was not made by Keras 2 or that is subclassed.

    Raises:
        LoadError: the file is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        nodes = [_node(value) for field, value in _fields(path.read_bytes()) if field == _NODES]
    except (IndexError, ValueError, TypeError) as error:
        raise LoadError(
            f"{path} is damaged.",
            expected="the description that Keras 2 writes beside saved_model.pb",
            received=f"{path.stat().st_size} bytes; {type(error).__name__}: {error}",
            fix="copy or download the folder again.",
        ) from error
    described = {place: (identifier, texts.parse(text, path)) for place, identifier, text in nodes}
    identifier, root = described.get("root", ("", {}))
    if identifier not in _MODELS or not isinstance(root.get("config"), dict):
        return None
    names = {place: str(data["name"]) for place, (_, data) in described.items() if place != "root" and "name" in data}
    return Described({"class_name": root.get("class_name"), "config": root["config"]}, names)


def _node(message: bytes | int) -> tuple[str, str, bytes]:
    if isinstance(message, int):
        raise ValueError("a node is no message")
    fields = {field: value for field, value in _fields(message) if isinstance(value, bytes)}
    return fields.get(_PATH, b"").decode(), fields.get(_IDENTIFIER, b"").decode(), fields.get(_METADATA) or b"{}"


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yields number and value of every field of a message, as protocol buffers are encoded."""
    place = 0
    while place < len(message):
        tag, place = _number(message, place)
        if tag & 7 == 0:
            value, place = _number(message, place)
            yield tag >> 3, value
        elif tag & 7 == 2:
            length, place = _number(message, place)
            if place + length > len(message):
                raise ValueError("the message is cut off")
            yield tag >> 3, message[place : place + length]
            place += length
        else:
            raise ValueError(f"a field of wire type {tag & 7}")


def _number(message: bytes, place: int) -> tuple[int, int]:
    """Reads a number of seven bits per byte, the lowest first."""
    number = shift = 0
    while True:
        byte = message[place]
        place += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, place
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
