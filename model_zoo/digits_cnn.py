"""A small convolutional network on scikit-learn's handwritten digits, for examples and tests.

The trained model and a few of its test digits are kept in the repository. ``python -m model_zoo.digits_cnn`` trains it
anew (half a minute on a CPU; needs scikit-learn). Do that with Keras 3.12: it cannot read what later ones write, and
what earlier ones write makes every later one warn about the structure of the inputs.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from keras import layers

HERE = Path(__file__).parent
MODEL = HERE / "digits_cnn.keras"
SAMPLES = HERE / "digits_samples.npz"

SEED = 7
NUM_SAMPLES = 50


def load() -> keras.Model:
    """Load the trained model: gray digits (batch, 8, 8, 1) within [0, 1] -> probabilities (batch, 10)."""
    return keras.saving.load_model(MODEL, compile=False)


def samples() -> tuple[np.ndarray, np.ndarray]:
    """Load 50 digits that the model was not trained on, five of each class.

    Returns:
        Images, float32 (50, 8, 8, 1) within [0, 1], and labels, int64 (50,).

    Example:
        >>> images, labels = samples()
        >>> images.shape, labels[:3].tolist()
        ((50, 8, 8, 1), [0, 1, 2])
    """
    with np.load(SAMPLES) as file:
        return file["images"].astype(np.float32) / 16, file["labels"].astype(np.int64)


def architecture() -> keras.Model:
    """Build the untrained model: two convolutions with batch normalisation, two max-poolings, one dense layer."""
    image = keras.Input((8, 8, 1), name="image")
    x = image
    for index, filters in enumerate((16, 32), 1):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv{index}")(x)
        x = layers.BatchNormalization(name=f"bn{index}")(x)
        x = layers.ReLU(name=f"relu{index}")(x)
        x = layers.MaxPooling2D(name=f"pool{index}")(x)
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(image, layers.Dense(10, activation="softmax", name="digit")(x), name="digits_cnn")


def train() -> float:
    """Train the model, write it and the samples beside this file, and return its accuracy on the test digits."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    keras.utils.set_random_seed(SEED)
    digits = load_digits()
    images = digits.images[..., None].astype(np.uint8)  # 0..16
    train_x, test_x, train_y, test_y = train_test_split(
        images, digits.target, test_size=0.25, stratify=digits.target, random_state=SEED
    )
    model = architecture()
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(train_x / 16.0, train_y, batch_size=32, epochs=30, verbose=0)
    accuracy = model.evaluate(test_x / 16.0, test_y, verbose=0)[1]

    untrained = architecture()  # takes the weights only, so that the file holds no state of the optimizer
    untrained.set_weights(model.get_weights())
    untrained.save(MODEL)
    # Five of each digit, in the order 0..9, 0..9, ...: any first few are of different classes.
    of_class = [np.flatnonzero(test_y == digit)[: NUM_SAMPLES // 10] for digit in range(10)]
    chosen = np.stack(of_class, axis=1).ravel()
    np.savez_compressed(SAMPLES, images=test_x[chosen], labels=test_y[chosen].astype(np.uint8))
    return accuracy


if __name__ == "__main__":
    print(f"accuracy on the test digits: {train():.4f}; {MODEL}, {SAMPLES}")
