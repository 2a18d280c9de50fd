"""``kxai report``, with the real library behind it and small models."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import kxai
from kxai.cli import main

RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Models and inputs: paths by name."""
    folder = tmp_path_factory.mktemp("files")
    keras.utils.set_random_seed(1)
    layers = [keras.Input((8, 10, 3)), keras.layers.Conv2D(3, 3, activation="relu"), keras.layers.Flatten()]
    keras.Sequential([*layers, keras.layers.Dense(3, activation="softmax")]).save(folder / "image.keras")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(folder / "table.keras")
    text = [
        keras.Input((5,), dtype="int32"),
        keras.layers.Embedding(9, 4),
        keras.layers.Flatten(),
        keras.layers.Dense(2),
    ]
    keras.Sequential(text).save(folder / "text.keras")
    for name in ("cat", "dog"):
        Image.fromarray(RNG.integers(0, 256, (16, 20, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    np.save(folder / "rows.npy", RNG.normal(size=(3, 4)).astype(np.float32))
    np.save(folder / "more.npy", RNG.normal(size=(2, 4)).astype(np.float32))
    np.save(folder / "training.npy", RNG.uniform(size=(9, 8, 10, 3)).astype(np.float32))
    np.save(folder / "ids.npy", RNG.integers(0, 9, (2, 5)))
    (folder / "names.json").write_text(json.dumps(["owl", "cat", "dog"]))
    (folder / "columns.txt").write_text("age\nheight\nweight\nincome\n")
    (folder / "words.txt").write_text("not bad\nfine\n")
    (folder / "words.json").write_text(json.dumps([["not", "bad"], ["fine"]]))
    (folder / "wrong.json").write_text(json.dumps([["not", 1]]))
    return {path.name: str(path) for path in folder.iterdir()}


def facts(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="facts">(.*?)</script>', text, re.DOTALL)[1])


def test_images(files, tmp_path, capsys):
    out = tmp_path / "report.html"
    command = [
        "report",
        files["image.keras"],
        files["cat.png"],
        files["dog.png"],
        "--preprocess",
        "unit",
        "-o",
        str(out),
    ]
    options = ["--methods", "lrp.epsilon,grad_cam,attention_rollout", "--set", "lrp.epsilon:epsilon=0.25"]
    assert main([*command, *options, "--labels", files["names.json"], "--target", "dog", "--title", "Pets"]) == 0
    said = facts(out)
    assert said["title"] == "Pets"
    assert [sample["name"] for sample in said["samples"]] == [files["cat.png"], files["dog.png"]]
    assert [method["name"] for method in said["methods"]] == ["lrp.epsilon", "grad_cam", "attention_rollout"]
    assert said["methods"][0]["config"]["hyperparameters"]["epsilon"] == 0.25
    assert said["methods"][0]["samples"][0]["target"] == "dog"
    assert said["pictures"][0][0]["shape"] == [8, 10, 3]
    printed, errors = capsys.readouterr()
    lines = printed.splitlines()
    assert lines[0].startswith("refused: attention_rollout: ")
    assert lines[1].split() == ["file", "size", "precision"]
    assert lines[2].split() == [str(out), f"{out.stat().st_size / 1e6:.2f}", "MB", "single"]
    assert errors == ""


def test_the_numbers_are_those_of_the_library(files, tmp_path):
    out = tmp_path / "report.html"
    assert main(["report", files["table.keras"], files["rows.npy"], "--methods", "lrp.epsilon", "-o", str(out)]) == 0
    expected = kxai.explain(kxai.load(files["table.keras"]), np.load(files["rows.npy"]), "lrp.epsilon")
    assert [one["score"] for one in facts(out)["methods"][0]["samples"]] == expected.score.tolist()


def test_tables(files, tmp_path):
    out = tmp_path / "report.html"
    command = ["report", files["table.keras"], files["rows.npy"], files["more.npy"], "-o", str(out)]
    methods = ["--methods", "fine=lrp.epsilon, coarse=lrp.epsilon", "--set", "coarse:epsilon=0.25"]
    assert main([*command, *methods, "--features", files["columns.txt"], "--quiet"]) == 0
    said = facts(out)
    assert said["parts"][0]["features"] == ["age", "height", "weight", "income"]
    assert [sample["name"] for sample in said["samples"]] == [
        *(f"{files['rows.npy']}[{row}]" for row in range(3)),
        *(f"{files['more.npy']}[{row}]" for row in range(2)),
    ]
    assert [(one["name"], one["config"]["hyperparameters"].get("epsilon")) for one in said["methods"]] == [
        ("fine", None),
        ("coarse", 0.25),
    ]


@pytest.mark.parametrize("name", ["words.txt", "words.json"])
def test_texts(files, tmp_path, name):
    out = tmp_path / "report.html"
    command = ["report", files["text.keras"], files["ids.npy"], "--methods", "lrp.epsilon", "-o", str(out)]
    assert main([*command, "--tokens", files[name]]) == 0
    assert facts(out)["parts"][0]["words"] == [[["not", True], ["bad", True]], [["fine", True]]]


def test_fitted_methods_and_files_of_arrays(files, tmp_path):
    out = tmp_path / "report.html"
    command = ["report", files["image.keras"], files["cat.png"], "--preprocess", "unit", "-o", str(out), "--quiet"]
    options = ["--methods", "pattern_attribution,deepshap", "--fit", files["training.npy"]]
    assert main([*command, *options, "--set", f"deepshap:background={files['training.npy']}"]) == 0
    assert [method["error"] for method in facts(out)["methods"]] == ["", ""]


def test_default_methods(files, tmp_path):
    out = tmp_path / "report.html"
    assert main(["report", files["table.keras"], files["rows.npy"], "-o", str(out)]) == 0
    assert tuple(method["name"] for method in facts(out)["methods"]) == kxai.reports.DEFAULT_METHODS


def test_a_smaller_file(files, tmp_path, capsys):
    out = tmp_path / "report.html"
    command = ["report", files["image.keras"], files["cat.png"], "--preprocess", "unit", "-o", str(out)]
    assert main(command) == 0
    size = out.stat().st_size
    assert main([*command, "--max-megabytes", str((size - 9) / 1e6)]) == 0
    assert out.stat().st_size < size
    assert capsys.readouterr().out.splitlines()[-1].endswith("half")
    before = out.read_bytes()
    assert main([*command, "--max-megabytes", "0.001"]) == 1
    assert "The report would be too large." in capsys.readouterr().err
    assert out.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--methods", "nonsense"], "Unknown method 'nonsense'"),
        (["--target", "9"], "No method explains this model with these inputs"),
        (["--target", "owl"], "The target 'owl' is a name, but the classes have no names"),
        (["--set", "gradient:a=1"], "Unknown method in settings 'gradient'"),
        (["--tokens", "wrong.json"], "holds no tokens"),
        (["--tokens", "nowhere.txt"], "There is no token file"),
        (["--features", "columns.txt", "--tokens", "words.json"], "feature_names fits no input"),
        (["--fit", "rows.npy"], "No method of this report is fitted to data"),
    ],
)
def test_refusals(files, tmp_path, capsys, extra, said):
    extra = [files.get(word, word) for word in extra]
    out = tmp_path / "report.html"
    assert main(["report", files["table.keras"], files["rows.npy"], "-o", str(out), *extra]) == 1
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert said in errors
    assert "Traceback" not in errors
    assert not out.exists()


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--preprocess", "unit"], "--preprocess: only for images"),
        (["--crop"], "--crop: only for images"),
        (["cat.png"], "images and array files cannot be mixed"),
        (["--methods", "a,,b"], "expected names with commas between them"),
        (["--methods", "a,a"], "the same method twice as A=NAME,B=NAME"),
        (["--methods", ""], "expected names with commas between them"),
        (["--set", "epsilon=1"], "expected METHOD:KEY=VALUE"),
        (["--set", "lrp.epsilon:epsilon"], "expected KEY=VALUE"),
        (["--methods", "gradient", "--set", "lrp.epsilon:epsilon=1"], "lrp.epsilon is not among --methods"),
        (["--set", "a:b=1", "--set", "a:b=2"], "a:b is given twice"),
        (["--batch-size", "0"], "expected an integer >= 1"),
        (["--max-megabytes", "-1"], "expected a finite number > 0"),
        (["--max-megabytes", "nan"], "expected a finite number > 0"),
    ],
)
def test_usage_errors(files, tmp_path, capsys, extra, said):
    with pytest.raises(SystemExit) as caught:
        main(["report", files["table.keras"], files["rows.npy"], *extra, "-o", str(tmp_path / "report.html")])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_images_need_to_be_preprocessed(files, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["report", files["image.keras"], files["cat.png"], "-o", str(tmp_path / "report.html")])
    assert caught.value.code == 2
    assert "--preprocess is required for images" in capsys.readouterr().err


def test_a_folder_is_made(files, tmp_path):
    out = tmp_path / "new" / "report.html"
    assert main(["report", files["table.keras"], files["rows.npy"], "--methods", "gradient", "-o", str(out)]) == 0
    assert out.exists()


@pytest.mark.parametrize("name", ["table.keras", "rows.npy", ".", "report"])
def test_only_pages_are_written(files, tmp_path, monkeypatch, capsys, name):
    out = files.get(name, name)
    before = {path: path.read_bytes() for path in map(Path, files.values())}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["report", files["table.keras"], files["rows.npy"], "-o", out])
    assert caught.value.code == 2
    assert "--output: expected an .html file" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before


def test_quiet_in_a_pipe(files, tmp_path):
    command = [sys.executable, "-m", "kxai", "report", files["table.keras"], files["rows.npy"], "-o", "report.html"]
    environment = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    root = os.path.dirname(os.path.dirname(kxai.__file__))
    done = subprocess.run(
        command, cwd=tmp_path, env={**environment, "PYTHONPATH": root}, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
    head, line = done.stdout.splitlines()
    assert head.split() == ["file", "size", "precision"]
    assert line.split()[0] == "report.html"
