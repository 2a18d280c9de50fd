"""TensorFlow: from the bytes of image files to pixels, and back."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def decoded(files: Any, sizes: tuple[int, ...]) -> Any:
    """Pixels of images.

    Args:
        files: strings (batch,), each a JPEG or PNG file (BMP and GIF are read, too).
        sizes: height, width and channels (1 or 3); images of another size are resized, bilinear and smoothed when
            reduced.

    Returns:
        uint8 (batch, height, width, channels).
    """

    height, width, channels = sizes

    def one(file: Any) -> Any:
        image = tf.io.decode_image(file, channels=channels, expand_animations=False)
        image.set_shape((None, None, channels))
        resized = tf.image.resize(image, (height, width), antialias=True)
        return tf.saturate_cast(tf.round(resized), tf.uint8)

    spec = tf.TensorSpec(sizes, tf.uint8)
    return tf.map_fn(one, files, fn_output_signature=spec)


def encoded(images: Any) -> Any:
    """PNG files, strings (batch,), of uint8 images (batch, height, width, channels)."""
    return tf.map_fn(tf.io.encode_png, images, fn_output_signature=tf.string)
