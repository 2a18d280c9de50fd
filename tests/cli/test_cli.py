"""The command line by itself: the library behind it is played by small stand-ins that record how they are called."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

import kxai
from kxai.cli import images, main, names, table
from kxai.errors import InputError, LoadError, RuleError
from kxai.explanation import Explanation
from kxai.loading import load
from kxai.version import __version__

RNG = np.random.default_rng(0)


@pytest.fixture
def calls(monkeypatch):
    """Replaces the library by gradient-like stand-ins and returns what they are called with."""
    seen = SimpleNamespace(created=None, explained=[])

    def create_analyzer(name, model, **hyperparameters):
        seen.created = (name, hyperparameters)
        return SimpleNamespace(explain=lambda x, **options: explained(model, x, options), conserves=name != "gradient")

    def explained(model, x, options):
        seen.explained.append((x, options))
        outputs = model.predict(x, verbose=0)
        best = outputs.argmax(axis=1)
        target = best if options["target"] is None else np.full(len(outputs), options["target"])
        score = outputs[np.arange(len(outputs)), target]
        relevance = keras.tree.map_structure(lambda part: np.asarray(part, np.float32), x)
        return Explanation(relevance, outputs, target, score, config={"method": seen.created[0]})

    monkeypatch.setattr(kxai, "create_analyzer", create_analyzer, raising=False)
    described = {"lrp.epsilon": "epsilon rule", "lrp.epsilon_plus": "both rules", "gradient": "plain"}
    monkeypatch.setattr(kxai, "methods", lambda: described, raising=False)
    plan = SimpleNamespace(rows=[("conv", "AFFINE", "Epsilon()"), ("relu", "ELEMENTWISE", "Pass()")], notes=["a note"])

    def planned(model, method, **hyperparameters):
        seen.created = (method, hyperparameters)
        return plan

    monkeypatch.setattr(kxai, "plan", planned, raising=False)
    return seen


@pytest.fixture
def model(tmp_path):
    layers = [keras.Input((8, 10, 3)), keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    keras.Sequential(layers).save(tmp_path / "image.keras")
    return str(tmp_path / "image.keras")


@pytest.fixture
def picture(tmp_path):
    pixels = RNG.integers(0, 256, (16, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cat.png")
    return str(tmp_path / "cat.png")


@pytest.fixture
def labels(tmp_path):
    (tmp_path / "names.json").write_text(json.dumps(["dog", "cat", "bird"]))
    return str(tmp_path / "names.json")


def test_a_hyperparameter_may_be_a_file_of_arrays(calls, model, picture, tmp_path):
    background = RNG.normal(size=(3, 8, 10, 3)).astype(np.float32)
    np.save(tmp_path / "training.npy", background)
    command = ["explain", model, picture, "--preprocess", "unit", "-o", str(tmp_path / "out")]
    assert main([*command, "--set", f"background={tmp_path / 'training.npy'}"]) == 0
    np.testing.assert_array_equal(calls.created[1]["background"], background)


def test_a_missing_file_of_arrays_is_named(calls, model, picture, tmp_path, capsys):
    command = ["explain", model, picture, "--preprocess", "unit", "-o", str(tmp_path / "out")]
    assert main([*command, "--set", "background=nowhere.npy"]) == 1
    assert "nowhere.npy" in capsys.readouterr().err


def test_explain_writes_the_files_and_says_so(calls, model, picture, labels, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    command = ["explain", model, picture, picture, "--preprocess", "127,128", "--target", "cat", "--labels", labels]
    method = ["--method", "lrp.epsilon", "--set", "epsilon=0.01", "--set", "mode=fast", "--batch-size", "4"]
    code = main([*command, *method, "-o", str(out)])
    assert code == 0
    assert calls.created == ("lrp.epsilon", {"epsilon": 0.01, "mode": "fast"})
    ((x, options),) = calls.explained
    assert x.shape == (2, 8, 10, 3)
    assert x.dtype == np.float32
    assert options == {"target": 1, "batch_size": 4, "verbose": None}
    names = [f"cat{number}{ending}" for number in ("", "-2") for ending in ("-heatmap.png", "-overlay.png", ".npz")]
    assert sorted(entry.name for entry in out.iterdir()) == sorted(names)
    one = Explanation.load(out / "cat-2.npz")
    np.testing.assert_array_equal(one.relevance, x[1:])
    np.testing.assert_allclose(x * 128 + 127, np.rint(x * 128 + 127), atol=1e-4)
    heatmap = np.asarray(Image.open(out / "cat-heatmap.png"))
    assert heatmap.shape == (200, 250, 3)  # 25 dots for a pixel, to be seen
    assert (heatmap[12::25, 12::25] == kxai_plot(one)).all()
    assert (heatmap.reshape(8, 25, 10, 25, 3) == kxai_plot(one)[:, np.newaxis, :, np.newaxis]).all()
    assert np.asarray(Image.open(out / "cat-overlay.png")).shape == (200, 250, 3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["input", "predicted", "target", "score", "residual", "files"]
    assert len(lines) == 3
    assert f"{one.score[0]:.6g}" in lines[1]
    assert f"{one.residual[0]:.2g}" in lines[1]
    assert str(out / "cat-2.npz") in lines[2]


@pytest.mark.parametrize(("method", "residual"), [("lrp.epsilon", True), ("gradient", False)])
def test_residuals_of_methods_that_share_the_score_out(calls, model, tmp_path, capsys, method, residual):
    np.save(tmp_path / "x.npy", RNG.uniform(size=(2, 8, 10, 3)).astype(np.float32))
    command = ["explain", model, str(tmp_path / "x.npy"), "--method", method, "-o", str(tmp_path / "out")]
    assert main(command) == 0
    explanation = Explanation.load(tmp_path / "out" / "x.npz")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    # The class and its probability are two words.
    assert [row[5] for row in rows] == [f"{value:.2g}" if residual else "-" for value in explanation.residual]


def kxai_plot(one):
    from kxai.plots import heatmap_rgb

    return heatmap_rgb(one.heatmap()[0])


def test_predicted_class_has_its_label(calls, model, picture, labels, tmp_path, capsys):
    main(["explain", model, picture, "--preprocess", "unit", "--labels", labels, "-o", str(tmp_path / "o"), "--quiet"])
    ((x, options),) = calls.explained
    assert options["target"] is None
    assert options["verbose"] is False
    assert 0 <= x.min() < x.max() <= 1
    outputs = load(model).predict(x, verbose=0)
    name = ["dog", "cat", "bird"][outputs.argmax()]
    assert f"{name} ({outputs.max():.4g})  {name}  " in capsys.readouterr().out


def test_overlay_opacity_changes_the_overlay(calls, model, picture, tmp_path):
    drawn = []
    for opacity in ("0", "0.9"):
        out = str(tmp_path / opacity)
        assert main(["explain", model, picture, "--preprocess", "raw", "-o", out, "--overlay-opacity", opacity]) == 0
        drawn.append(np.asarray(Image.open(tmp_path / opacity / "cat-overlay.png")).astype(int))
    assert np.ptp(drawn[0], axis=-1).max() == 0
    assert np.ptp(drawn[1], axis=-1).max() > 30


def test_arrays(calls, tmp_path, capsys):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]).save(tmp_path / "table.keras")
    np.save(tmp_path / "rows.npy", RNG.normal(size=(3, 4)).astype(np.float32))
    files = [str(tmp_path / name) for name in ("table.keras", "rows.npy")]
    assert main(["explain", *files, "--target", "0", "-o", str(tmp_path / "out")]) == 0
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["rows.npz", "rows.png"]
    assert len(Explanation.load(tmp_path / "out" / "rows.npz")) == 3
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_arrays_by_the_names_of_the_inputs(calls, tmp_path):
    a, b = keras.Input((4,), name="a"), keras.Input((5, 2), name="b")
    joined = keras.layers.Concatenate()([a, keras.layers.Flatten()(b)])
    keras.Model({"a": a, "b": b}, keras.layers.Dense(2)(joined)).save(tmp_path / "two.keras")
    np.savez(tmp_path / "x.npz", a=np.ones((2, 4), np.float32), b=np.ones((2, 5, 2), np.float32))
    assert main(["explain", str(tmp_path / "two.keras"), str(tmp_path / "x.npz"), "-o", str(tmp_path / "out")]) == 0
    assert sorted(calls.explained[0][0]) == ["a", "b"]
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["x-a.png", "x-b.png", "x.npz"]


def test_methods_are_fitted(model, picture, tmp_path, capsys):
    np.save(tmp_path / "training.npy", RNG.uniform(size=(40, 8, 10, 3)).astype(np.float32))
    command = ["explain", model, picture, "--preprocess", "unit", "-o", str(tmp_path / "out"), "--quiet"]
    fit = ["--fit", str(tmp_path / "training.npy")]
    assert main([*command, "--method", "pattern_attribution", *fit]) == 0
    assert Explanation.load(tmp_path / "out" / "cat.npz").relevance.any()
    capsys.readouterr()
    assert main([*command, "--method", "pattern_attribution"]) == 1
    assert "fit" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main([*command, "--method", "gradient", *fit])
    assert caught.value.code == 2
    assert "--fit: not fitted to data: gradient; pattern_net and its kin are" in capsys.readouterr().err


def test_plan_takes_hyperparameters(calls, model, capsys):
    assert main(["plan", model, "--method", "lrp.epsilon", "--set", "epsilon=0.5"]) == 0
    assert calls.created == ("lrp.epsilon", {"epsilon": 0.5})
    with pytest.raises(SystemExit) as caught:
        main(["plan", model, "--set", "a=1", "--set", "a=2"])
    assert caught.value.code == 2
    assert "the same key is given twice" in capsys.readouterr().err


def test_plan_and_methods(calls, model, capsys):
    assert main(["plan", model]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "node  kind         rule",
        "conv  AFFINE       Epsilon()",
        "relu  ELEMENTWISE  Pass()",
        "note: a note",
    ]
    assert main(["methods"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "gradient          plain"


def test_errors_are_told_without_a_traceback(calls, picture, model, tmp_path, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise RuleError("The node 'x' has no rule.", fix="choose another method.")

    monkeypatch.setattr(kxai, "create_analyzer", refuse)
    command = ["explain", model, picture, "--preprocess", "raw", "-o", str(tmp_path / "out")]
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "kxai: The node 'x' has no rule.\n  Fix: choose another method.\n")
    assert not (tmp_path / "out").exists()
    assert main([*command, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_defects_are_not_hidden(calls, model, monkeypatch):
    monkeypatch.setattr(kxai, "methods", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["methods"])


def test_interrupted(calls, monkeypatch, capsys):
    monkeypatch.setattr(kxai, "methods", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["methods"]) == 130
    assert capsys.readouterr().err == "kxai: interrupted\n"


def test_unsafe_is_named_where_it_helps(calls, tmp_path, capsys):
    twice = keras.layers.Lambda(lambda x: 2 * x, output_shape=(4,))
    keras.Sequential([keras.Input((4,)), twice]).save(tmp_path / "lambda.keras")
    assert main(["plan", str(tmp_path / "lambda.keras")]) == 1
    assert "On the command line: --unsafe." in capsys.readouterr().err
    assert main(["plan", str(tmp_path / "lambda.keras"), "--unsafe"]) == 0


def test_options_of_loading(calls, tmp_path, capsys):
    toy = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    (tmp_path / "toy.json").write_text(toy.to_json())
    toy.save_weights(tmp_path / "elsewhere.weights.h5")
    toy.export(tmp_path / "exported", verbose=False)
    capsys.readouterr()
    path, folder = str(tmp_path / "toy.json"), str(tmp_path / "exported")
    assert main(["plan", path]) == 1
    assert "On the command line: --weights FILE." in capsys.readouterr().err
    assert main(["plan", path, "--weights", str(tmp_path / "elsewhere.weights.h5")]) == 0
    assert main(["plan", folder, "--endpoint", "none"]) == 1
    assert "On the command line: --endpoint NAME." in capsys.readouterr().err
    assert main(["plan", folder, "--endpoint", "serve"]) == 0
    assert main(["plan", folder, "--weights", path]) == 1
    assert "weights has no effect here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ([], "--preprocess is required for images: raw, unit, signed, caffe, torch or MEAN,STD"),
        (["--preprocess", "caffee"], "expected one of raw, unit, signed, caffe, torch or MEAN,STD"),
        (["--preprocess", "1,0"], "STD not 0"),
        (["--preprocess", "raw", "--set", "epsilon"], "expected KEY=VALUE"),
        (["--preprocess", "raw", "--set", "a=1", "--set", "a=2"], "the same key is given twice"),
        (["--preprocess", "raw", "--batch-size", "0"], "expected an integer >= 1"),
        (["--preprocess", "raw", "--clip", "0"], "expected a percentile in (0, 100]"),
        (["--preprocess", "raw", "--overlay-opacity", "2"], "expected a number in [0, 1]"),
        (["x.npy", "--preprocess", "raw"], "images and array files cannot be mixed"),
    ],
)
def test_usage_errors(calls, model, picture, tmp_path, capsys, extra, said):
    with pytest.raises(SystemExit) as caught:
        main(["explain", "-o", str(tmp_path / "out"), model, picture, *extra])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--preprocess", "raw"], ["--crop"], ["--overlay-opacity", "0.5"]])
def test_options_for_images_are_refused_for_arrays(calls, model, tmp_path, capsys, option):
    with pytest.raises(SystemExit):
        main(["explain", model, "x.npy", "-o", str(tmp_path), *option])
    assert f"{option[0]}: only for images" in capsys.readouterr().err


def test_no_command_and_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"kxai {__version__}\n"


@pytest.mark.parametrize("command", ["explain", "report", "plan", "methods", "maximize"])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"  kxai {command}" in capsys.readouterr().out.split("examples:")[1]


def test_preprocessing_equals_that_of_keras():
    x = RNG.uniform(0, 255, (2, 4, 4, 3))
    for name, mode in (("caffe", "caffe"), ("torch", "torch"), ("signed", "tf")):
        expected = keras.applications.imagenet_utils.preprocess_input(x.copy(), "channels_last", mode)
        np.testing.assert_allclose(images.preprocessing(name)(x), expected, rtol=1e-6, atol=1e-5)
    assert images.preprocessing("unit")(np.array([255.0])) == 1
    assert images.preprocessing("raw")(x) is x


def test_images_are_brought_to_size(tmp_path):
    Image.new("RGB", (40, 20), "red").save(tmp_path / "wide.png")
    Image.new("L", (8, 8), 77).save(tmp_path / "gray.png")
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    wide, gray, clear = (str(tmp_path / f"{name}.png") for name in ("wide", "gray", "clear"))
    batch = images.read_images([wide, gray, clear], (8, 8, 3))
    assert batch.shape == (3, 8, 8, 3)
    assert [sample[0, 0].tolist() for sample in batch] == [[255, 0, 0], [77, 77, 77], [255, 255, 255]]
    assert images.read_images([gray], (4, 6, 1)).shape == (1, 4, 6, 1)
    assert images.read_images([wide], (None, None, 3)).shape == (1, 20, 40, 3)
    with pytest.raises(InputError, match="The images differ in size"):
        images.read_images([wide, gray], (None, None, 3))


def test_crop_keeps_proportions(tmp_path):
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 10:30] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert images.read_images([str(tmp_path / "a.png")], (20, 20, 3), crop=True).min() == 255
    assert images.read_images([str(tmp_path / "a.png")], (20, 20, 3)).min() == 0


def test_unreadable_inputs(tmp_path, picture):
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(LoadError, match="is no image that can be read"):
        images.read_images([str(tmp_path / "bad.png")], (4, 4, 3))
    with open(picture, "rb") as stream:
        (tmp_path / "half.png").write_bytes(stream.read()[:400])
    with pytest.raises(LoadError, match="Received: 400 bytes"):
        images.read_images([str(tmp_path / "half.png")], (4, 4, 3))
    with pytest.raises(LoadError, match=r"There is no image at .*cta.png.\n[^$]*did you mean cat.png"):
        images.read_images([str(tmp_path / "cta.png")], (4, 4, 3))
    (tmp_path / "bad.npy").write_bytes(b"no array")
    with pytest.raises(LoadError, match="holds no arrays that can be read"):
        images.read_arrays(str(tmp_path / "bad.npy"))
    np.save(tmp_path / "object.npy", np.array([None]))
    with pytest.raises(LoadError, match="would have to be unpickled"):
        images.read_arrays(str(tmp_path / "object.npy"))
    with pytest.raises(InputError, match=r"does not take images[^$]*Received: \(None, 29\)"):
        images.input_size((None, 29))


def test_targets_by_name():
    from kxai.errors import TargetError, UnknownNameError

    with pytest.raises(TargetError, match="is a name, but the classes have no names"):
        names.target("cat", None)
    with pytest.raises(TargetError, match=r"Several classes are named 'crane'[^$]*the classes 0, 2"):
        names.target("crane", ["crane", "x", "crane"])
    with pytest.raises(UnknownNameError, match=r"Unknown label 'catt'[^$]*did you mean cat"):
        names.target("catt", ["cat"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "dog\ncat\n"),
        ("a.json", '["dog", "cat"]'),
        ("b.json", '{"1": "cat", "0": "dog"}'),
        ("c.json", '{"0": ["n01", "dog"], "1": ["n02", "cat"]}'),
    ],
)
def test_labels(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert names.read_labels(str(tmp_path / name)) == ["dog", "cat"]


@pytest.mark.parametrize("text", ['{"1": "cat"}', "[1, 2]", "[]", "5", "{"])
def test_bad_labels(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(LoadError, match="does not name classes"):
        names.read_labels(str(tmp_path / "a.json"))


@pytest.mark.parametrize("names", ["dog\n", "a\nb\nc\nd\n"])
def test_labels_of_another_model(calls, model, picture, tmp_path, capsys, names):
    (tmp_path / "other.txt").write_text(names)
    command = ["explain", model, picture, "--preprocess", "unit", "--labels", str(tmp_path / "other.txt")]
    assert main([*command, "--target", "0", "-o", str(tmp_path / "out")]) == 1
    count = names.count("\n")
    assert f"The labels fit no output.\n  Expected: one label per output unit\n  Received: {count} labels" in (
        capsys.readouterr().err
    )
    assert calls.explained == []


def test_table_on_a_terminal_is_drawn(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", stream)
    table.show(["node"], [["dense[bold]"]])
    assert "dense[bold]" in stream.getvalue()
    assert "━" in stream.getvalue()


def test_only_notices_are_dropped(capfd):
    from kxai.cli.quiet import notices_dropped

    def write():
        os.write(2, b"I0000 00:00:1.5 12 port.cc:153] oneDNN\nW0000 00:00:1.5 12 real.cc:1] trouble\n")
        sys.stderr.write("from python\n")

    with notices_dropped():
        write()
    expected = "W0000 00:00:1.5 12 real.cc:1] trouble\n"
    said = capfd.readouterr().err
    assert expected in said
    assert "oneDNN" not in said
    with contextlib.suppress(RuntimeError), notices_dropped():
        write()
        raise RuntimeError
    assert expected in capfd.readouterr().err


def test_as_a_program(model):
    program = [sys.executable, "-m", "kxai"]
    done = subprocess.run([*program, "plan", "nothing.keras"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "\nkxai: There is no model at nothing.keras.\n" in "\n" + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    done = subprocess.run([*program, "explain"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the following arguments are required" in done.stderr


def test_with_the_library_itself(model, picture, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["explain", model, picture, "--preprocess", "signed", "--method", "lrp.epsilon", "-o", str(out)]
    assert main([*command, "--set", "epsilon=0.5"]) == 0
    one = Explanation.load(out / "cat.npz")
    assert one.config["method"] == "lrp.epsilon"
    assert one.relevance.shape == (1, 8, 10, 3)
    assert f"  {one.score[0]:.6g}  " in capsys.readouterr().out
    assert main(["plan", model, "--method", "lrp.epsilon"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["node", "kind", "rule"]
    assert main(["explain", model, picture, "--preprocess", "raw", "--method", "lrp.epsilom", "-o", str(out)]) == 1
    assert "lrp.epsilon" in capsys.readouterr().err
