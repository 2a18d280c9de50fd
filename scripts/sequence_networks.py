"""A vision transformer and a recurrent network of usual size, which keras.applications lacks."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops


class ClassToken(layers.Layer):
    """Puts a learned token before the patches and adds a learned vector per position."""

    def build(self, shape: Any) -> None:
        self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="random_normal", name="token")
        self.positions = self.add_weight(shape=(shape[1] + 1, shape[-1]), initializer="random_normal", name="positions")

    def call(self, patches: Any) -> Any:
        shape = ops.shape(patches)
        token = ops.broadcast_to(self.token, (shape[0], 1, shape[2]))
        return ops.concatenate([token, patches], axis=1) + self.positions


def vision_transformer(size: int) -> keras.Model:
    """ViT-Ti/16: patches of 16 pixels, 12 blocks of width 192 with 3 heads, 1000 classes."""
    image = keras.Input((size, size, 3))
    x = layers.Reshape((-1, 192))(layers.Conv2D(192, 16, 16)(image))
    x = ClassToken()(x)
    for _ in range(12):
        h = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(3, 64)(h, h)])
        h = layers.Dense(768, "gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(192)(h)])
    return keras.Model(image, layers.Dense(1000)(layers.LayerNormalization()(x)[:, 0]), name="vit")


def long_short_term_memory(size: int) -> keras.Model:
    """Two stacked LSTMs of width 128 over ``size`` steps of 64 features, 10 classes."""
    steps = keras.Input((size, 64))
    x = layers.LSTM(128, return_sequences=True)(steps)
    return keras.Model(steps, layers.Dense(10)(layers.LSTM(128)(x)), name="lstm")


SEQUENCE_NETWORKS = {"ViT": vision_transformer, "LSTM": long_short_term_memory}
