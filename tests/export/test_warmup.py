"""Warm-up requests are those that TensorFlow Serving reads, and can be answered."""

from __future__ import annotations

import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kxai
from kxai.errors import ExportError, InputError
from kxai.exporting import Image
from kxai.testing import models

FILE = "assets.extra/tf_serving_warmup_requests"


def cnn():
    stack = [layers.Conv2D(3, 3, activation="relu"), layers.GlobalAveragePooling2D(), layers.Dense(2, name="y")]
    return models.seeded(keras.Sequential([keras.Input((6, 5, 3), name="x"), *stack], name="tiny"))


@pytest.fixture(scope="module")
def log():
    """The message that the file is made of."""
    if not os.environ.get("CI"):
        pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    return PredictionLog


def requests(done, log):
    records = [log.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(done.path / FILE))]
    return [record.predict_log.request for record in records]


def arrays(request):
    return {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}


def test_every_signature_is_asked_once_and_answers(log, tmp_path):
    model = cnn()
    done = kxai.export([kxai.LRP(model, "epsilon"), kxai.Gradient(model)], tmp_path, image=Image("unit"))
    found = requests(done, log)
    assert [request.model_spec.signature_name for request in found] == list(done.signatures)
    assert {request.model_spec.name for request in found} == {"tiny"}
    module = tf.saved_model.load(done.path)
    for request in found:
        name = request.model_spec.signature_name
        given = arrays(request)
        assert {len(array) for array in given.values()} == {1}
        reply = module.signatures[name](**{key: tf.convert_to_tensor(array) for key, array in given.items()})
        assert set(reply) == set(done.signatures[name].outputs)


def test_zeros_and_the_predicted_class_by_default(log, tmp_path):
    _, explain = requests(kxai.export(kxai.LRP(cnn(), "epsilon"), tmp_path), log)
    given = arrays(explain)
    np.testing.assert_array_equal(given["x"], np.zeros((1, 6, 5, 3), np.float32))
    np.testing.assert_array_equal(given["target"], np.int32([-1]))


def test_given_inputs(log, tmp_path):
    x = models.numbers(6, 5, 3)
    serving, explain = requests(kxai.export(kxai.LRP(cnn(), "epsilon"), tmp_path, warmup=x), log)
    np.testing.assert_array_equal(arrays(serving)["x"], x)
    np.testing.assert_array_equal(arrays(explain)["target"], np.full(4, -1, np.int32))


def test_none_on_request(tmp_path):
    done = kxai.export(kxai.LRP(cnn(), "epsilon"), tmp_path, warmup=False)
    assert not (done.path / "assets.extra").exists()


def test_inputs_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(InputError, match="wrong shape"):
        kxai.export(kxai.LRP(cnn(), "epsilon"), tmp_path / "new", warmup=np.zeros((1, 5, 5, 3)))
    assert not (tmp_path / "new").exists()


def test_a_request_that_would_stop_a_server_is_not_written(tmp_path):
    model = keras.Sequential([keras.Input((2,), name="x"), layers.Dense(2, name="y")])
    model.set_weights([np.full((2, 2), np.inf), np.zeros(2)])
    with pytest.raises(ExportError, match="explain' cannot be computed for the inputs that would warm") as caught:
        kxai.export(kxai.Gradient(model), tmp_path / "new")
    assert "is not finite" in str(caught.value)
    assert not (tmp_path / "new").exists()
    kxai.export(kxai.Gradient(model), tmp_path / "new", warmup=False)
