"""Exports answer like the analyzers in every loader: TensorFlow's two in Python, and C++ without any Python.

The C++ program takes the way of TensorFlow Serving (LoadSavedModel, then session->Run, with XLA disabled).
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kxai
from kxai import plots
from kxai.analyzers import METHODS
from kxai.exporting import Image
from kxai.graph.trace import input_specs
from kxai.testing import models
from tests.export import parity
from tests.test_contract import NEEDED

pytestmark = [
    pytest.mark.slow,
    # The classes that are asked for are no matter here.
    pytest.mark.filterwarnings("ignore:Deep Taylor explains positive logits"),
]

BATCHES = (1, 3, 8)
SAMPLES = max(BATCHES)
# Methods in one export: sessions prepare each signature with the whole graph, so many take the square of their time.
TOGETHER = 6
# Methods that need a model of their own.
ATTENTION = {"attention_rollout", "attention_relevance"}
NAMED = {"lrp.vgg16_tutorial"}
LAYER = {name: {"layer": "maps"} for name in ("internal_influence", "layer_conductance")}
NETWORK = sorted(set(METHODS) - ATTENTION - NAMED)


def cnn():
    """A network on which every method is defined."""
    stack = [
        layers.Conv2D(4, 3, activation="relu", name="early"),
        layers.MaxPooling2D(2),
        layers.Conv2D(5, 2, activation="relu", name="maps"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3, "softmax", name="label"),
    ]
    model = keras.Sequential([keras.Input((9, 9, 3), name="image"), *stack], name="small_cnn")
    return models.seeded(model), models.numbers(9, 9, 3, samples=SAMPLES)


def analyzer_of(name, model):
    needed = NEEDED["expected_gradients"] if name == "gradient_shap" else NEEDED.get(name, {})
    analyzer = kxai.create_analyzer(name, model, **{**needed, **LAYER.get(name, {})})
    if name in ("pattern_net", "pattern_attribution", "pattern.net", "pattern.attribution"):
        analyzer.fit(models.numbers(9, 9, 3, seed=7, samples=32), verbose=False)
    return analyzer


@dataclass
class Written:
    """An export, with what is asked of it and what it must answer."""

    folder: Any
    requests: list
    replies: list


def write(base, case, analyzers, output=None, **options):
    """Export analyzers of a case, and ask each for every batch size, for given and for predicted classes."""
    x = keras.tree.map_structure(lambda array: np.resize(array, (SAMPLES, *array.shape[1:])), case.inputs)
    # Warm-up requests have tests of their own; here they would compute every signature once more.
    done = kxai.export(analyzers, base / case.name, output=output, warmup=False, **options)
    example = options.get("example")
    specs = input_specs(case.model, example)
    names = parity.names_of(case.model, specs)
    outputs = list(done.signatures["serving_default"].outputs)
    live = next(iter(analyzers.values())).explain(x, output)
    predicted = next(iter(live.target.values())) if output else live.target
    units = (live.outputs[output] if output else live.outputs).shape[-1]
    asked = np.minimum(np.array([-1, 1, 0, -1, 1, 0, 1, -1], "int32"), units - 1)
    chosen = np.where(asked < 0, predicted, asked)
    requests, replies = [], []
    for name, analyzer in analyzers.items():
        # An analyzer's numbers do not depend on what else is in a batch: one call knows them for all sizes.
        explained = parity.expected(analyzer.explain(x, {output: chosen} if output else chosen), names, outputs)
        for count in BATCHES:
            part = parity.flat(parity.rows(x, 0, count), names)
            requests.append((f"explain_{name}", {**part, "target": asked[:count]}))
            replies.append({key: array[:count] for key, array in explained.items()})
    return Written(done.path, requests, replies)


def two(model):
    return {name.split(".")[-1]: kxai.create_analyzer(name, model) for name in ("lrp.epsilon_plus", "gradient_x_input")}


def mixed():
    policy = keras.mixed_precision.DTypePolicy("mixed_float16")
    stack = [layers.Dense(8, "relu", dtype=policy), layers.Dense(3, dtype=policy, name="label")]
    model = keras.Sequential([keras.Input((6,), name="x"), *stack], name="mixed")
    return models.Case("mixed", models.seeded(model), models.numbers(6))


STRUCTURES = (
    models.residual, models.list_inputs, models.dict_inputs, models.tokens, models.nested, models.shared, models.lstm,
    models.gru, mixed,
)  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Every export of this module, by name."""
    base = tmp_path_factory.mktemp("exports")
    model, x = cnn()
    case = models.Case("small_cnn", model, x)
    found = {}
    # Names of the same method with the same hyperparameters are exported once.
    network = list({repr(one.config()): (name, one) for name in NETWORK for one in [analyzer_of(name, model)]}.values())
    for start in range(0, len(network), TOGETHER):
        some = {name.replace(".", "_"): analyzer for name, analyzer in network[start : start + TOGETHER]}
        found[f"methods from {start}"] = write(base / str(start), case, some)
    for build in STRUCTURES:
        case = build()
        found[case.name] = write(base, case, two(case.model))
    case = models.multi_output()
    found["multi_output"] = write(base, case, two(case.model), output="label")
    case = models.subclassed()
    found["subclassed"] = write(base, case, two(case.model), example=case.inputs)
    case = models.sequence()
    found["sequence"] = write(base, case, two(case.model), example=case.inputs)
    case = models.vision_transformer()
    analyzers = {name: kxai.create_analyzer(name, case.model) for name in sorted(ATTENTION)}
    found["attention"] = write(base, case, analyzers)
    case = models.vgg()
    found["vgg"] = write(base, case, {"tutorial": analyzer_of("lrp.vgg16_tutorial", case.model)})
    return found


def test_every_method_is_exported():
    assert set(METHODS) == {*NETWORK, *ATTENTION, *NAMED}


@pytest.fixture(params=["load", "session", "cpp"])
def command(request, python):
    """What answers requests."""
    return request.getfixturevalue("cpp") if request.param == "cpp" else python[request.param]


def test_answers_are_the_analyzers_own(python, cpp, written, answer):
    # One test, so that the exports are written once in however many processes tests run.
    for loader, command in {**python, "cpp": cpp}.items():
        answers = answer(command, {one.folder: one.requests for one in written.values()})
        for name, one in written.items():
            for (signature, asked), (error, reply), wanted in zip(
                one.requests, answers[one.folder], one.replies, strict=True
            ):
                assert error == ""
                parity.assert_equal(reply, wanted, f"{loader} {name} {signature} {len(asked['target'])}")


def test_images_and_wrong_numbers(command, answer, tmp_path):
    model, _ = cnn()
    analyzer = kxai.LRP(model, "epsilon_plus")
    done = kxai.export(analyzer, tmp_path / "model", image=Image("signed"))
    images = np.random.default_rng(0).integers(0, 256, (3, 9, 9, 3), np.uint8)
    files = np.empty(3, object)
    files[:] = [tf.io.encode_png(image).numpy() for image in images]
    x = (images / 127.5 - 1).astype(np.float32)
    asked = np.int32([2, -1, 0])
    requests = [
        ("explain_image", {"image_bytes": files, "target": asked}),
        ("serving_default", {"image": x}),
        ("explain", {"image": x, "target": np.int32([0, 3, 0])}),
        ("explain", {"image": x * np.float32(np.nan), "target": asked}),
    ]
    (error, reply), plain, *failed = answer(command, {done.path: requests})[done.path]
    assert error == plain[0] == ""
    live = analyzer.explain(x, [2, int(np.argmax(model(x)[1])), 0])
    drawn = reply.pop("overlay_png_bytes")
    parity.assert_equal(reply, parity.expected(live, ["image"], ["label"]), "explain_image")
    for image, heatmap, data in zip(images, live.heatmap(), drawn, strict=True):
        # A number that lies between two levels may be rounded to either.
        assert np.abs(tf.io.decode_png(data).numpy().astype(int) - plots.overlay(image, heatmap)).max() <= 1
    np.testing.assert_allclose(plain[1]["label"], live.outputs, rtol=1e-5)
    assert [reply for _, reply in failed] == [{}, {}]
    assert "target: from 0 to 2, or -1 for the predicted class" in failed[0][0]
    assert "input 'image' is not finite" in failed[1][0]


def test_the_cpp_program_holds_no_python(cpp):
    linked = subprocess.run(["ldd", *cpp], capture_output=True, text=True, check=True).stdout
    libraries = re.findall(r"^\s*(\S+)", linked, re.MULTILINE)
    assert "libtensorflow_cc.so.2" in libraries
    assert not [name for name in libraries if "python" in name.lower()]


def saved_model_cli(*arguments):
    program = Path(sys.executable).with_name("saved_model_cli")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_saved_model_cli(tmp_path):
    model, x = cnn()
    analyzer = kxai.LRP(model, "epsilon_plus")
    done = kxai.export(analyzer, tmp_path / "model")
    told = saved_model_cli("show", "--dir", str(done.path), "--tag_set", "serve", "--signature_def", "explain")
    assert re.search(r"inputs\['target'\] tensor_info:\s+dtype: DT_INT32\s+shape: \(-1\)", told)
    assert re.search(r"outputs\['relevance'\] tensor_info:\s+dtype: DT_FLOAT\s+shape: \(-1, 9, 9, 3\)", told)
    assert "Method name is: tensorflow/serving/predict" in told
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "t.npy", np.ones(SAMPLES, np.int32))
    inputs = f"image={tmp_path / 'x.npy'};target={tmp_path / 't.npy'}"
    saved_model_cli("run", "--dir", str(done.path), "--tag_set", "serve", "--signature_def", "explain",
                    "--inputs", inputs, "--outdir", str(tmp_path))  # fmt: skip
    live = analyzer.explain(x, 1)
    reply = {name: np.load(tmp_path / f"{name}.npy") for name in ("label", "relevance", "target", "score", "residual")}
    parity.assert_equal(reply, parity.expected(live, ["image"], ["label"]), "saved_model_cli")
