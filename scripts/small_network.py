"""A network that is measured in seconds, to see whether the measuring works."""

from __future__ import annotations

import keras
from keras import layers


def small(size: int) -> keras.Model:
    """Two convolutions and a residual one, 10 classes."""
    image = keras.Input((size, size, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = layers.Add()([x, layers.Conv2D(16, 3, padding="same", activation="relu")(x)])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10, activation="softmax")(x), name="small")
