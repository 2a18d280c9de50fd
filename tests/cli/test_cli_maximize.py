"""``kxai maximize``: its arguments become the maximiser's, and its file is what that finds."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

import kxai
from kxai.cli import main
from kxai.maximization import Maximization


@pytest.fixture
def model(tmp_path):
    rows = [keras.layers.Conv2D(2, 3, name="conv"), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")]
    keras.Sequential([keras.Input((6, 5, 3)), *rows]).save(tmp_path / "m.keras")
    return str(tmp_path / "m.keras")


@pytest.fixture
def calls(monkeypatch):
    """Replaces the maximiser; keeps what it is given. Its images are the high end of the range in the first channel."""
    seen = SimpleNamespace()

    def made(model, **options):
        seen.options = options

        def maximize(targets, verbose):
            seen.targets, seen.verbose = targets, verbose
            low, high = (np.broadcast_to(np.asarray(value, float), (3,)) for value in options["input_range"])
            images = np.tile(np.where([True, False, False], high, low), (len(targets), 6, 5, 1))
            scores = np.arange(len(targets), dtype=float) + 7
            return Maximization(images, scores, scores[None] - 5, low, high)

        return SimpleNamespace(maximize=maximize)

    monkeypatch.setattr(kxai, "ActivationMaximization", made, raising=False)
    return seen


def test_arguments_are_handed_on(calls, model, tmp_path, capsys):
    (tmp_path / "names.json").write_text(json.dumps(["dog", "cat", "bird"]))
    out = tmp_path / "new" / "out.png"
    command = [
        "maximize",
        model,
        "--target",
        "cat",
        "0",
        "--labels",
        str(tmp_path / "names.json"),
        "--range",
        "-1",
        "3",
    ]
    assert main([*command, "-o", str(out), "--set", "num_steps=5", "--set", "l2_norm=0.5", "--quiet"]) == 0
    assert calls.options == {"layer": None, "input_range": (-1.0, 3.0), "num_steps": 5, "l2_norm": 0.5}
    assert (calls.targets, calls.verbose) == ([1, 0], False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "target"
    assert [line.split() for line in lines[1:3]] == [["cat", "2", "7"], ["dog", "3", "8"]]
    assert lines[3] == str(out)
    with Image.open(out) as drawn:
        assert drawn.width > drawn.height


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("unit", 0.0, 1.0),
        ("signed", -1.0, 1.0),
        ("raw", 0.0, 255.0),
        ("100,-50", -3.1, 2.0),
        ("torch", [-2.1179, -2.0357, -1.8044], [2.2489, 2.4286, 2.64]),
        ("caffe", [-103.939, -116.779, -123.68], [151.061, 138.221, 131.32]),
    ],
)
def test_preprocessing_says_the_range(calls, model, tmp_path, name, low, high):
    out = tmp_path / "o.npy"
    assert main(["maximize", model, "--target", "2", "--layer", "conv", "--preprocess", name, "-o", str(out)]) == 0
    for got, want in zip(calls.options["input_range"], (low, high), strict=True):
        assert np.shape(got) == np.shape(want)
        np.testing.assert_allclose(got, want, atol=1e-4)
    assert calls.options["layer"] == "conv"
    assert np.load(out).shape == (1, 6, 5, 3)


@pytest.mark.parametrize(("name", "colour"), [("signed", [255, 0, 0]), ("caffe", [0, 0, 255]), ("torch", [255, 0, 0])])
def test_pictures_have_their_colours(calls, model, tmp_path, name, colour):
    out = tmp_path / "o.png"
    assert main(["maximize", model, "--target", "0", "--preprocess", name, "-o", str(out)]) == 0
    with Image.open(out) as drawn:
        pixels = np.asarray(drawn.convert("RGB"))
    assert pixels[pixels.shape[0] // 2, pixels.shape[1] // 2].tolist() == colour


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--range", "0", "1", "-o", "x.jpg"], "--output: expected a .png or a .npy file, received x.jpg"),
        (["-o", "x.png"], "one of the arguments --range --preprocess is required"),
        (["--range", "0", "1", "--preprocess", "unit", "-o", "x.png"], "not allowed with argument"),
        (["--range", "0", "-o", "x.png"], "--range: expected 2 arguments"),
        (["--preprocess", "grey", "-o", "x.png"], "expected one of raw"),
        (["--range", "0", "1", "-o", "x.png", "--set", "steps=3"], "--set: expected num_steps"),
        (["--range", "0", "1", "-o", "x.png", "--set", "seed=3", "--set", "seed=4"], "the same key is given twice"),
        (
            ["--range", "0", "1", "-o", "x.png", "--labels", "l", "--layer", "conv"],
            "channels of a layer have no labels",
        ),
    ],
)
def test_usage_errors(calls, model, capsys, extra, said):
    with pytest.raises(SystemExit) as stopped:
        main(["maximize", model, "--target", "0", *extra])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_too_few_labels_are_said(calls, model, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("dog\n")
    command = ["maximize", model, "--target", "1", "--labels", str(tmp_path / "names.txt"), "--range", "0", "1"]
    assert main([*command, "-o", str(tmp_path / "x.png")]) == 1
    assert "The class 1 has no label" in capsys.readouterr().err


def test_a_missing_package_is_said(model, tmp_path, monkeypatch, capsys):
    for name in {"tf_keras_vis.activation_maximization", *(n for n in sys.modules if n.startswith("tf_keras_vis"))}:
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["maximize", model, "--target", "0", "--range", "0", "1", "-o", str(tmp_path / "x.png")]) == 1
    assert 'pip install "kxai[actmax]"' in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


def test_with_the_library_itself(model, tmp_path, capsys):
    pytest.importorskip("tf_keras_vis", reason="tf-keras-vis is not installed (pip install 'kxai[actmax]')")
    out = tmp_path / "x.png"
    command = ["maximize", model, "--target", "0", "1", "--range", "0", "1", "--set", "num_steps=5", "-o", str(out)]
    assert main(command) == 0
    with Image.open(out) as drawn:
        assert drawn.width > drawn.height
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:3]]
    assert all(float(after) > float(before) for _, before, after in rows)
