"""``kxai export``: what is written and said, and how mistakes are answered."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kxai
from kxai.analyzers.pattern.methods import PatternAnalyzer
from kxai.cli import main
from kxai.testing import models


@pytest.fixture
def model(tmp_path):
    stack = [layers.Conv2D(4, 3, activation="relu"), layers.GlobalAveragePooling2D(), layers.Dense(3, name="y")]
    built = models.seeded(keras.Sequential([keras.Input((6, 6, 3), name="x"), *stack], name="tiny"))
    built.save(tmp_path / "model.keras")
    return built


@pytest.fixture
def export(model, tmp_path):
    """Runs the command; returns its exit code."""

    def run(*options, base="served"):
        return main(["export", str(tmp_path / "model.keras"), "-o", str(tmp_path / base), *options])

    return run


def facts(tmp_path, signature="explain", version=1):
    text = (tmp_path / "served" / str(version) / "assets" / "explanation.json").read_text()
    return json.loads(text)["signatures"][signature]


def mistake(run, capsys):
    with pytest.raises(SystemExit) as caught:
        run()
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_it_writes_and_says_what(export, model, tmp_path, capsys):
    assert export("--method", "lrp.epsilon", "--set", "epsilon=0.25") == 0
    told = capsys.readouterr()
    assert told.err == ""
    lines = told.out.splitlines()
    assert lines[0].split() == ["signature", "takes", "returns"]
    assert lines[1].split("  ")[0] == "serving_default"
    assert "target int32[batch], x float32[batch,6,6,3]" in lines[2]
    assert "relevance float32[batch,6,6,3], residual float64[batch]" in lines[2]
    size = sum(file.stat().st_size for file in (tmp_path / "served").rglob("*") if file.is_file())
    assert lines[3] == f"{tmp_path / 'served' / '1'}: {size} bytes"
    x = models.numbers(6, 6, 3)
    run = tf.saved_model.load(tmp_path / "served" / "1").signatures["explain"]
    live = kxai.LRP(model, "epsilon", epsilon=0.25).explain(x, 2)
    reply = run(x=tf.constant(x), target=tf.constant([2] * 4))
    np.testing.assert_allclose(reply["relevance"], live.relevance, rtol=1e-5, atol=1e-7)


def test_the_default_method_takes_settings(export, tmp_path, capsys):
    assert export("--set", "epsilon=0.5") == 0
    assert facts(tmp_path)["method"] == "lrp.epsilon_plus"
    assert facts(tmp_path)["hyperparameters"]["epsilon"] == 0.5


def test_settings_belong_to_the_method_before_them(export, tmp_path, capsys):
    methods = ["--method", "lrp.epsilon", "--set", "epsilon=0.5", "--method", "grad_cam", "--set", "relu=True"]
    assert export(*methods, "--method", "lrp.z") == 0
    named = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert named == ["serving_default", "explain", "explain_lrp_epsilon", "explain_grad_cam", "explain_lrp_z"]
    assert facts(tmp_path, "explain_lrp_epsilon")["hyperparameters"]["epsilon"] == 0.5
    assert facts(tmp_path, "explain_grad_cam")["hyperparameters"]["relu"] is True


def test_files_of_data(export, tmp_path, capsys):
    np.save(tmp_path / "data.npy", models.numbers(6, 6, 3, samples=16))
    np.save(tmp_path / "some.npy", models.numbers(6, 6, 3, samples=2))
    methods = ["--method", "lrp.z", "--method", "pattern_attribution", "--fit", str(tmp_path / "data.npy")]
    assert export(*methods, "--warmup", str(tmp_path / "some.npy")) == 0
    records = list(tf.data.TFRecordDataset(str(tmp_path / "served/1/assets.extra/tf_serving_warmup_requests")))
    assert len(records) == 4
    assert models.numbers(6, 6, 3, samples=2).tobytes() in records[0].numpy()


def test_fitting_in_batches(export, tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "data.npy", models.numbers(6, 6, 3, samples=16))
    seen, fit = [], PatternAnalyzer.fit

    def watched(self, x, batch_size=32, verbose=None):
        seen.append((len(x), batch_size, verbose))
        return fit(self, x, batch_size, verbose)

    monkeypatch.setattr(PatternAnalyzer, "fit", watched)
    command = ["--method", "pattern_attribution", "--fit", str(tmp_path / "data.npy"), "--no-warmup"]
    assert export(*command) == 0
    assert export(*command, "--batch-size", "5", "--quiet", "--overwrite") == 0
    assert seen == [(16, 32, None), (16, 5, False)]


def test_images_targets_versions(export, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("dog\ncat\nbird\n")
    options = ["--version", "3", "--image", "127,128", "--target", "cat", "--labels", str(tmp_path / "names.txt")]
    assert export(*options, "--no-warmup") == 0
    assert "image_bytes string[batch]" in capsys.readouterr().out
    assert facts(tmp_path, "explain_image", 3)["target"] == {"fixed": 1, "outputs": ["y"]}
    assert not (tmp_path / "served" / "3" / "assets.extra").exists()


def test_a_version_is_replaced_on_request(export, capsys):
    assert export() == 0
    assert export() == 1
    assert "--overwrite" in capsys.readouterr().err
    assert export("--overwrite") == 0


def test_open_sizes(tmp_path, capsys):
    stack = [layers.Conv2D(4, 3, activation="relu"), layers.GlobalAveragePooling2D(), layers.Dense(3, name="y")]
    keras.Sequential([keras.Input((None, None, 3), name="x"), *stack]).save(tmp_path / "open.keras")
    command = ["export", str(tmp_path / "open.keras"), "-o", str(tmp_path / "served")]
    assert main(command) == 1
    assert "leaves open" in capsys.readouterr().err
    assert main([*command, "--image", "unit", "--size", "5x7"]) == 0
    assert "x float32[batch,5,7,3]" in capsys.readouterr().out
    np.save(tmp_path / "one.npy", np.zeros((1, 4, 4, 3)))
    assert main([*command, "--example", str(tmp_path / "one.npy"), "--version", "2"]) == 0
    assert "x float32[batch,4,4,3]" in capsys.readouterr().out


def test_several_outputs(tmp_path, capsys):
    models.multi_output().model.save(tmp_path / "model.keras")
    command = ["export", str(tmp_path / "model.keras"), "-o", str(tmp_path / "served")]
    assert main(command) == 1
    assert "2 outputs" in capsys.readouterr().err
    assert main([*command, "--output-name", "label"]) == 0
    assert facts(tmp_path)["target"]["outputs"] == ["label"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--version", "-1"], "expected an integer >= 0, received '-1'"),
        (["--version", "one"], "expected an integer >= 0, received 'one'"),
        (["--set", "epsilon"], "expected KEY=VALUE"),
        (["--set", "epsilon=1", "--method", "lrp.z"], "--set epsilon: stands before the --method that it belongs to"),
        (["--set", "epsilon=1", "--set", "epsilon=2"], "the same key is given twice"),
        (["--image", "half"], "--image: expected one of raw, unit"),
        (["--size", "5x5"], "--size: only together with --image"),
        (["--image", "unit", "--size", "5"], "expected HEIGHTxWIDTH, such as 224x224, received '5'"),
        (["--image", "unit", "--size", "5x0"], "expected HEIGHTxWIDTH"),
        (["--no-warmup", "--warmup", "a.npy"], "--no-warmup: contradicts --warmup"),
        (["--labels", "names.txt"], "--labels: only together with --target"),
        (["--batch-size", "8"], "--batch-size: only together with --fit"),
        (["--batch-size", "0", "--fit", "data.npy"], "expected an integer >= 1, received '0'"),
    ],
)
def test_mistakes_in_the_command_line(options, text, export, tmp_path, capsys):
    assert text in mistake(lambda: export(*options), capsys)
    assert not (tmp_path / "served").exists()


def test_data_that_nothing_is_fitted_to(export, tmp_path, capsys):
    np.save(tmp_path / "data.npy", models.numbers(6, 6, 3))
    error = mistake(lambda: export("--fit", str(tmp_path / "data.npy")), capsys)
    assert "--fit: not fitted to data: lrp.epsilon_plus; pattern_net and its kin are" in error


def test_the_folder_is_required(tmp_path, capsys):
    assert "-o" in mistake(lambda: main(["export", str(tmp_path / "model.keras")]), capsys)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--method", "lrp.epsilonn"], "Unknown method 'lrp.epsilonn'"),
        (["--method", "lrp.z", "--method", "lrp.z"], "both be called explain_lrp_z"),
        (["--target", "7"], "not a unit of output 'y'"),
        (["--example", "nowhere.npy"], "no array file at nowhere.npy"),
    ],
)
def test_what_cannot_be_done_is_told(options, text, export, tmp_path, capsys):
    assert export(*options) == 1
    assert text in capsys.readouterr().err
    assert not (tmp_path / "served").exists()
