"""The seam to the machine: everything that ``keras.ops`` does not offer."""

from __future__ import annotations

import importlib.util

from kxai.errors import MissingDependencyError

if importlib.util.find_spec("tensorflow") is None:
    raise MissingDependencyError(
        "kxai needs TensorFlow, which is not installed.",
        fix="pip install 'kxai[cpu]' for CPUs, or pip install 'kxai[gpu]' for NVIDIA GPUs.",
    )

import keras

if keras.backend.backend() != "tensorflow":
    raise MissingDependencyError(
        "kxai runs on Keras with the TensorFlow backend.",
        expected="KERAS_BACKEND=tensorflow",
        received=f"KERAS_BACKEND={keras.backend.backend()}",
        fix="set the environment variable KERAS_BACKEND=tensorflow before Keras is first imported.",
    )

from kxai.backend.black_box import SavedModel
from kxai.backend.checkpoints import Checkpoint, stored_bytes
from kxai.backend.dispatch import foreign_calls, output_spec
from kxai.backend.random import keys, normal, uniform
from kxai.backend.summaries import Summaries
from kxai.backend.tensorflow import (
    ACTIVATIONS,
    NoDerivative,
    asserted,
    compile,
    constant,
    dataset_batches,
    eagerly,
    is_dataset,
    is_eager,
    jvp,
    reached,
    repeat,
    scan,
    to_numpy,
    trace_count,
    vjp,
    watched,
    with_shape,
)

__all__ = [
    "ACTIVATIONS",
    "Checkpoint",
    "NoDerivative",
    "asserted",
    "Summaries",
    "SavedModel",
    "compile",
    "constant",
    "dataset_batches",
    "eagerly",
    "foreign_calls",
    "is_dataset",
    "is_eager",
    "jvp",
    "keys",
    "normal",
    "output_spec",
    "reached",
    "repeat",
    "scan",
    "stored_bytes",
    "to_numpy",
    "trace_count",
    "uniform",
    "vjp",
    "watched",
    "with_shape",
]
