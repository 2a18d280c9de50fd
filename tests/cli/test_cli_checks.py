"""Mistakes that the command line tells before it begins to work."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kxai.cli import main


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A model of tables in the current folder, and a batch for it."""
    monkeypatch.chdir(tmp_path)
    keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)]).save("table.keras")
    np.savez("rows.npz", np.ones((2, 5), np.float32))
    return tmp_path


def refused(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_inputs_are_never_overwritten(table, capsys):
    before = (table / "rows.npz").read_bytes()
    assert "rows.npz would be overwritten" in refused(["explain", "table.keras", "rows.npz", "-o", "."], capsys)
    (table / "more").mkdir()
    np.save("more/rows.npy", np.ones((2, 5), np.float32))
    command = ["explain", "table.keras", "more/rows.npy", "-o", str(table)]
    for option in (["--fit", "rows.npz"], ["--set", "background=rows.npz"]):
        assert "rows.npz would be overwritten" in refused([*command, *option], capsys)
    assert (table / "rows.npz").read_bytes() == before


def test_a_file_is_no_folder(table, capsys):
    for command in (["explain", "table.keras", "rows.npz"], ["export", "table.keras"]):
        assert "--output: expected a folder, rows.npz is a file" in refused([*command, "-o", "rows.npz"], capsys)


@pytest.mark.parametrize(
    "command",
    [
        ["explain", "no.keras", "rows.npz", "-o", "out", "--method", "gradiant"],
        ["report", "no.keras", "rows.npz", "-o", "out.html", "--methods", "gradiant"],
        ["export", "no.keras", "-o", "out", "--method", "gradiant"],
        ["plan", "no.keras", "--method", "gradiant"],
    ],
)
def test_methods_are_known_before_a_model_is_loaded(table, capsys, command):
    assert main(command) == 1
    printed = capsys.readouterr().err
    assert "Unknown method 'gradiant'.\n  Expected: did you mean gradient" in printed
    assert "'kxai methods' describes all of them" in printed


@pytest.mark.parametrize("command", [["explain", "-o", "out"], ["report", "-o", "out.html"]])
def test_inputs_are_there_before_a_model_is_loaded(table, capsys, command):
    name, *output = command
    assert main([name, "no.keras", "rows.npz", "raws.npz", *output]) == 1
    assert "raws.npz" in capsys.readouterr().err
    assert not (table / output[1]).exists()


def test_all_arrays_are_explained_or_none(table, capsys):
    np.save("wrong.npy", np.ones((2, 4), np.float32))
    command = ["explain", "table.keras", "rows.npz", "wrong.npy", "--method", "gradient", "-o", "out", "--quiet"]
    assert main(command) == 1
    assert "(2, 4)" in capsys.readouterr().err
    assert not (table / "out").exists()


def test_bounds_of_images_are_in_order(table, capsys):
    command = ["maximize", "table.keras", "--target", "0", "-o", "out.png", "--range"]
    for low, high in (("1", "0"), ("nan", "1"), ("0", "inf")):
        assert "--range: expected two finite numbers, LOW < HIGH" in refused([*command, low, high], capsys)
