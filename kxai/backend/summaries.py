"""Event files that TensorBoard shows, written without it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, final

import tensorflow as tf

# TensorFlow keeps these two messages under its old names alone.
_Metadata = tf.compat.v1.SummaryMetadata
_DATA_CLASSES = _Metadata.DESCRIPTOR.fields_by_name["data_class"].enum_type.values_by_name


@final
class Summaries:
    """One event file in a folder, made with it; what is written can be read at once.

    ``tf.summary.scalar`` and ``image`` are parts of TensorBoard, which need not be installed; the tensors and their
    metadata are the same.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self._writer = tf.summary.create_file_writer(os.fspath(folder))

    def scalars(self, numbers: Mapping[str, float], step: int) -> None:
        """Write numbers.

        Args:
            numbers: by tag.
            step: where they lie on the axis.
        """
        for tag, number in numbers.items():
            self._write(tag, tf.constant(number, tf.float32), step, _metadata("scalars", "SCALAR"))
        self._writer.flush()

    def image(self, tag: str, png: bytes, step: int, description: str = "") -> None:
        """Write a picture.

        Args:
            tag: its name.
            png: the file's content.
            step: where it lies on the axis.
            description: shown with it, in Markdown; default none.
        """
        width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))
        content = tf.constant([str(width).encode(), str(height).encode(), png])
        self._write(tag, content, step, _metadata("images", "BLOB_SEQUENCE", description))
        self._writer.flush()

    def close(self) -> None:
        """Write what is left and close the file."""
        self._writer.close()

    def _write(self, tag: str, tensor: Any, step: int, metadata: Any) -> None:
        with self._writer.as_default(), tf.summary.record_if(True):
            tf.summary.write(tag, tensor, step=step, metadata=metadata)


def _metadata(plugin: str, data_class: str, description: str = "") -> Any:
    return _Metadata(
        plugin_data=_Metadata.PluginData(plugin_name=plugin),
        summary_description=description,
        data_class=_DATA_CLASSES[f"DATA_CLASS_{data_class}"].number,
    )
