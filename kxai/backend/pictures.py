"""TensorFlow: from the bytes of image files to pixels, and back."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from kxai.backend.tensorflow import asserted

LARGEST = 2**26
"""Pixels of an image; more are refused before they are decoded, because a small file can hold very many."""
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


def decoded(files: Any, sizes: tuple[int, ...]) -> Any:
    """Pixels of images.

    Args:
        files: strings (batch,), each a JPEG or PNG file of at most LARGEST pixels; others fail when the graph runs.
        sizes: height, width and channels (1 or 3); images of another size are resized, bilinear and smoothed when
            reduced.

    Returns:
        uint8 (batch, height, width, channels).
    """
    height, width, channels = sizes

    def one(file: Any) -> Any:
        image = tf.io.decode_image(_checked(file), channels=channels, expand_animations=False)
        image.set_shape((None, None, channels))
        resized = tf.image.resize(image, (height, width), antialias=True)
        return tf.saturate_cast(tf.round(resized), tf.uint8)

    spec = tf.TensorSpec(sizes, tf.uint8)
    return tf.map_fn(one, files, fn_output_signature=spec)


def _checked(file: Any) -> Any:
    png, jpeg = (tf.strings.substr(file, 0, len(magic)) == magic for magic in (_PNG, _JPEG))
    file = asserted(file, png | jpeg, "an image is neither a JPEG nor a PNG file")
    # The function of each branch reads what only its kind of file has.
    sizes = tf.cond(png, lambda: _png_sizes(file), lambda: tf.image.extract_jpeg_shape(file, tf.int64)[:2])
    return asserted(file, sizes[0] * sizes[1] <= LARGEST, f"an image has more than {LARGEST} pixels")


def _png_sizes(file: Any) -> Any:
    """Of its first chunk, IHDR."""
    file = asserted(file, tf.strings.length(file) >= 24, "an image is a PNG file without a header")
    octets = tf.cast(tf.io.decode_raw(tf.strings.substr(file, 16, 8), tf.uint8), tf.int64)
    return tf.reduce_sum(tf.reshape(octets, (2, 4)) * [1 << 24, 1 << 16, 1 << 8, 1], axis=1)


def encoded(images: Any) -> Any:
    """PNG files, strings (batch,), of uint8 images (batch, height, width, channels)."""
    return tf.map_fn(tf.io.encode_png, images, fn_output_signature=tf.string)
