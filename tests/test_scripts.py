"""The scripts that measure say so when something fails."""

from __future__ import annotations

import re
import sys

import keras
import pytest

import kxai
from scripts import completeness, coverage_table


def save(folder, *layers):
    model = keras.Sequential([keras.Input((4, 3)), *layers, keras.layers.Flatten(), keras.layers.Dense(2)])
    path = folder / "model.keras"
    model.save(path)
    return path, model


def test_coverage_shows_every_cell_and_counts_failures(tmp_path, capsys, monkeypatch):
    path, _ = save(tmp_path, keras.layers.Softmax())
    monkeypatch.setattr(sys, "argv", ["coverage", str(path)])
    assert coverage_table.main() == 1
    head, row, *problems, total = capsys.readouterr().out.splitlines()
    assert head.split() == [coverage_table.SELF_TEST, *coverage_table.METHODS]
    assert row.startswith("model.keras  ")
    assert row.count("works") == 4  # the gradients and DeepLIFT
    assert row.count("RuleError") == len(problems) == 4
    assert "lrp.epsilon: RuleError: Node 'softmax" in problems[1]
    assert total == "1 networks, 4 failures"


def test_coverage_of_chosen_methods(tmp_path, capsys, monkeypatch):
    path, _ = save(tmp_path, keras.layers.Conv1D(4, 2, name="conv"))
    monkeypatch.setattr(sys, "argv", ["coverage", str(path), "--methods", "hires_cam", "lrp.epsilon"])
    assert coverage_table.main() == 0
    head, row, _ = capsys.readouterr().out.splitlines()
    assert head.split() == ["hires_cam", "lrp.epsilon"]
    assert row.count("works") == 2
    assert row.split()[3] == "conv"
    monkeypatch.setattr(sys, "argv", ["coverage", "--methods", "hires_cma"])
    with pytest.raises(SystemExit, match="2"):
        coverage_table.main()
    assert "no such method: hires_cma" in capsys.readouterr().err


def test_coverage_refuses_patterns_without_a_match(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["coverage", "--only", "NoSuchNet*"])
    with pytest.raises(SystemExit, match="2"):
        coverage_table.main()
    assert "VGG16" in capsys.readouterr().err


def test_self_test_notices_a_wrong_gradient(tmp_path, monkeypatch):
    _, model = save(tmp_path, keras.layers.Dense(5, activation="relu"))
    assert coverage_table.self_test(model).text.startswith("works")
    monkeypatch.setattr(kxai, "Gradient", kxai.GradientTimesInput)
    cell = coverage_table.self_test(model)
    assert cell.text.startswith("differs")
    assert cell.problem


def test_guided_backprop_is_told_what_to_do_at_other_activations(tmp_path):
    _, model = save(tmp_path, keras.layers.Dense(5, activation="tanh"))
    assert "(other_activations=gradient)" in coverage_table.explained(model, "guided_backprop").text


def test_a_crash_is_a_cell(monkeypatch):
    monkeypatch.setattr(coverage_table, "work", dies)
    cells = coverage_table.cover("any", None)
    assert list(cells) == [coverage_table.SELF_TEST, *coverage_table.METHODS]
    assert cells["deep_taylor"].text == "crashed"
    assert "exit code 3" in cells["deep_taylor"].problem


def dies(sender, name, size, methods):
    sys.exit(3)


@pytest.mark.parametrize("arguments", [["model.keras"], ["--size", "32"]])
def test_coverage_of_kerashub_takes_neither_files_nor_sizes(arguments, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["coverage", "--kerashub", *arguments])
    with pytest.raises(SystemExit, match="2"):
        coverage_table.main()
    assert "takes no FILE and no --size" in capsys.readouterr().err


def test_coverage_of_kerashub_says_that_it_is_missing(capsys, monkeypatch):
    monkeypatch.setattr(coverage_table.kerashub_models, "installed", lambda: False)
    monkeypatch.setattr(sys, "argv", ["coverage", "--kerashub"])
    with pytest.raises(SystemExit, match="2"):
        coverage_table.main()
    assert "KerasHub is not installed" in capsys.readouterr().err


@pytest.mark.skipif(not coverage_table.kerashub_models.installed(), reason="KerasHub is not installed")
def test_coverage_of_kerashub_has_a_cell_for_every_column(monkeypatch):
    name = coverage_table.KERASHUB + "VGG"
    cells = [compute() for compute in coverage_table.kerashub_cells(name, None)]
    assert len(cells) == len(coverage_table.columns(name))
    assert cells[0].text.endswith("nodes")
    assert all(cell.text.startswith("works") for cell in cells[1:])
    # A network with biases leaks.
    build = coverage_table.kerashub_models.build
    monkeypatch.setattr(coverage_table.kerashub_models, "build", lambda name, shifts: build(name))
    leak = coverage_table.kerashub_cells(name, None)[2]()
    assert leak.text.startswith("leaks")
    assert "not handed on" in leak.problem


def test_completeness_prints_a_row_per_grid_and_draws(tmp_path, capsys, monkeypatch):
    path, model = save(tmp_path, keras.layers.Dense(5, activation="tanh"))
    arguments = [str(path), "--steps", "1", "3", "--grids", "right", "trapezoid", "--png", str(tmp_path / "gaps.png")]
    monkeypatch.setattr(sys, "argv", ["completeness", *arguments])
    completeness.main()
    head, *rows, written, _ = capsys.readouterr().out.splitlines()
    assert head.split() == ["network", "grid", "1", "3"]
    gap = completeness.gap(model, completeness.architectures.sample(model, 4, seed=1), "right", 3)
    assert gap > 1e-3  # the gradient changes on the path
    assert rows[0].split()[:2] == ["model.keras", "right"]
    assert rows[0].endswith(f"{gap:.1e}")
    assert rows[1].split()[:3] == ["model.keras", "trapezoid", "-"]
    assert written == f"-- {tmp_path / 'gaps.png'}"
    assert (tmp_path / "gaps.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["NoSuchNet"], "neither a file nor a network of keras.applications; there are .*VGG16"),
        (["VGG16", "--steps", "0"], "expected at least 1"),
        (["VGG16", "--grids", "simpson"], "invalid choice: 'simpson'"),
    ],
)
def test_completeness_checks_its_arguments(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["completeness", *arguments])
    with pytest.raises(SystemExit, match="2"):
        completeness.main()
    assert re.search(message, capsys.readouterr().err)
