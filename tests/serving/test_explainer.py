"""The V1 protocol on a SavedModel, without a server: replies are the live analyzer's, faults are named."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
import tensorflow as tf

from kxai.errors import ArgumentError, InputError, LoadError, NumericalError, UnknownNameError
from kxai.serving.explainer import Explainer
from tests.serving import served


@pytest.fixture(scope="module")
def explainer(folder):
    return Explainer(folder, batch_size=2)


def stacked(replies, name):
    return np.array([reply[name] for reply in replies])


@pytest.mark.parametrize("form", ["values", "objects", "one target", "targets", "targets inside", "bytes"])
def test_explanations_are_those_of_the_live_model(form, model, explainer):
    x = served.images(5)
    rows, target = x.tolist(), None
    payload = {"instances": rows}
    if form == "objects":
        payload = {"instances": [{"image": row} for row in rows]}
    elif form == "one target":
        payload["target"] = target = 2
    elif form == "targets":
        payload["target"] = target = [3, 0, 1, 2, 2]
    elif form == "targets inside":
        target = [3, 0, 1, 2, 2]
        payload = {"instances": [{"image": row, "target": t} for row, t in zip(rows, target, strict=True)]}
    elif form == "bytes":
        payload = json.dumps(payload).encode()
    replies = explainer.explain(payload)["explanations"]
    json.dumps(replies, allow_nan=False)
    expected = served.live(model, "gradient").explain(x, target)
    assert set(replies[0]) == {"logits", "relevance", "target", "score", "residual"}
    # float32: the SavedModel may sum in another order than Keras.
    for name in ("relevance", "target", "score", "residual"):
        np.testing.assert_allclose(stacked(replies, name), getattr(expected, name), atol=1e-6, err_msg=name)
    np.testing.assert_allclose(stacked(replies, "logits"), expected.outputs, atol=1e-6)


def test_methods_are_signatures(model, explainer):
    x = served.images(2)
    payload = {"instances": x.tolist(), "signature_name": "explain_gradient_x_input", "target": -1}
    got = stacked(explainer.explain(payload)["explanations"], "relevance")
    np.testing.assert_allclose(got, served.live(model, "gradient_x_input").explain(x).relevance, atol=1e-6)


def test_predictions(model, explainer):
    x = served.images(3)
    predicted = explainer.predict({"instances": x.tolist()})["predictions"]
    np.testing.assert_allclose(predicted, model.predict(x, verbose=0), atol=1e-6)
    several = explainer.predict({"instances": x.tolist(), "signature_name": "explain"})["predictions"]
    assert set(several[0]) == {"logits", "relevance", "target", "score", "residual"}


def test_bytes(explainer):
    data = [b"\x00\xff", b""]
    coded = [{"b64": base64.b64encode(one).decode()} for one in data]
    for instances in (coded, [{"image_bytes": one} for one in coded]):
        replies = explainer.predict({"instances": instances, "signature_name": "echo"})["predictions"]
        assert replies == [{"same_bytes": one, "length": len(d)} for one, d in zip(coded, data, strict=True)]


ROW = np.zeros((6, 6, 1)).tolist()


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ([1], r"no request of the V1 protocol(.|\n)*Received: list"),
        ({}, "no request of the V1 protocol"),
        ({"instances": []}, "at least one instance"),
        ({"instances": "abc"}, "no request of the V1 protocol"),
        ({"inputs": [ROW]}, r"Received: 'inputs'"),
        (b'{"instances": [', "This is no JSON"),
        (b"\xff\xfe\x00", "This is no JSON"),
        (b"[" * 100_000, "This is no JSON"),
        ({"instances": [ROW], "tagret": 1}, r"unknown keys(.|\n)*Received: tagret"),
        ({"instances": [ROW[:5]]}, r"wrong shape(.|\n)*\(batch, 6, 6, 1\)(.|\n)*\(1, 5, 6, 1\)"),
        ({"instances": [ROW, ROW[:5]]}, "image is no array"),
        ({"instances": [[[["a"]]]]}, r"wrong type(.|\n)*text"),
        ({"instances": [[[[None]]]]}, "something else than numbers"),
        ({"instances": [[[[True]]]]}, r"wrong type(.|\n)*bool"),
        ({"instances": [1.0]}, "wrong shape"),
        (json.dumps({"instances": [np.full((6, 6, 1), np.nan).tolist()]}).encode(), "image is not finite"),
        ({"instances": [np.full((6, 6, 1), 1e300).tolist()]}, "does not hold"),
        ({"instances": [np.full((6, 6, 1), 10**400, object).tolist()]}, "something else than numbers"),
        ({"instances": [{"picture": ROW}]}, r"Expected: image, target(.|\n)*Received: picture, target"),
        ({"instances": [{"image": ROW, "mask": ROW}]}, "Received: image, mask, target"),
        ({"instances": [{"image": ROW}, ROW]}, "list, in instance 1"),
        ({"instances": [ROW, {"image": ROW}]}, "list, in instance 0"),
        ({"instances": [{"image": ROW}, {"image": ROW, "target": 1}]}, r"\['image', 'target'\], in instance 1"),
        ({"instances": [{"image": ROW, "target": 1}], "target": 1}, "target stands where none is expected"),
        ({"instances": [ROW], "target": [1, 2]}, "one number of samples"),
        ({"instances": [ROW], "target": 1.5}, r"target has values of the wrong type(.|\n)*int32"),
        ({"instances": [ROW], "target": None}, "target has values of the wrong type"),
        ({"instances": [ROW], "target": 2**40}, "does not hold"),
        ({"instances": [ROW], "target": {"a": 1}}, "target has values of the wrong type"),
    ],
)
def test_bad_payloads(payload, message, explainer):
    with pytest.raises(InputError, match=message):
        explainer.explain(payload)


def test_bad_signatures(explainer):
    for name in ("serving_default", "echo", "explain_lrp", 3, ["explain"]):
        with pytest.raises(UnknownNameError, match=r"Unknown signature"):
            explainer.explain({"instances": [ROW], "signature_name": name})
    with pytest.raises(UnknownNameError, match=r"did you mean explain"):
        explainer.predict({"instances": [ROW], "signature_name": "explian"})
    with pytest.raises(InputError, match="target stands where none is expected"):
        explainer.predict({"instances": [ROW], "target": 1})
    for value in ({"b64": "?"}, {"b64": 3}):
        with pytest.raises(InputError, match="not in base64"):
            explainer.predict({"instances": [value], "signature_name": "echo"})
    with pytest.raises(InputError, match="text or bytes"):
        explainer.predict({"instances": [3], "signature_name": "echo"})


def test_results_are_finite(explainer):
    with pytest.raises(NumericalError, match="is not finite"):
        explainer.predict({"instances": (np.sign(served.images(1)) * 3e38).tolist()})


def test_the_newest_version_is_taken(folder, tmp_path):
    for name in ("2", "10", "new"):
        (tmp_path / name).symlink_to(folder / "1")
    assert Explainer(tmp_path).signatures.keys() == Explainer(folder / "1").signatures.keys()
    (tmp_path / "10").unlink()
    (tmp_path / "10").mkdir()  # not yet written
    assert "explain" in Explainer(tmp_path).signatures


@pytest.mark.parametrize("size", [0, -1, 1.5, "3", True])
def test_bad_batch_sizes(size, folder):
    with pytest.raises(ArgumentError, match="batch_size is out of range"):
        Explainer(folder, size)


def test_bad_folders(tmp_path):
    with pytest.raises(LoadError, match=r"There is no SavedModel in (.|\n)*Received: nothing"):
        Explainer(tmp_path)
    with pytest.raises(LoadError, match="There is no SavedModel at"):
        Explainer(tmp_path / "other")
    (tmp_path / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(LoadError, match="no SavedModel that can be read"):
        Explainer(tmp_path)
    module = tf.Module()
    module.f = tf.function(lambda x: {"y": x}, input_signature=[tf.TensorSpec((None,), tf.float32, "x")])
    tf.saved_model.save(module, str(tmp_path / "plain"), signatures=module.f.get_concrete_function())
    with pytest.raises(LoadError, match=r"explains nothing(.|\n)*Received: serving_default"):
        Explainer(tmp_path / "plain")
