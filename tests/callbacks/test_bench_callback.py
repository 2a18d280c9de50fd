"""The measurement of what the callback costs."""

from __future__ import annotations

import json
import sys
import time

import keras
import pytest

from scripts import bench_callback


def test_the_table_shows_medians_and_ranges():
    found = {
        "samples": 5,
        "first": {"without": 1.0, "numbers": 2.5},
        "seconds": {"without": [0.1, 0.2, 0.3], "numbers": [0.11, 0.25, 0.31]},
        "callback": {"without": [0.0, 0.0, 0.0], "numbers": [0.01, 0.05, 0.01]},
    }
    _, without, numbers, note = bench_callback.table(found).splitlines()
    assert without.split() == ["without", "200", "(100..300)", "1.00"]
    assert numbers.split() == ["numbers", "250", "(110..310)", "10", "(10..50)", "2.50"]
    assert note.startswith("5 samples")


@pytest.mark.slow
def test_what_a_callback_takes_is_told(monkeypatch):
    class Slow(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            time.sleep(0.2)

    monkeypatch.setattr(bench_callback, "variants", lambda *_: {"without": list, "slow": lambda: [Slow()]})
    found = bench_callback.measured(rounds=1, samples=3)
    assert min(found["callback"]["slow"]) > 0.19
    assert min(found["callback"]["without"]) < min(found["seconds"]["without"])


@pytest.mark.slow
def test_all_variants_are_measured(tmp_path, monkeypatch, capsys):
    path = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["bench", "--rounds", "2", "--samples", "3", "--json", str(path)])
    assert bench_callback.main() == 0
    found = json.loads(path.read_text())
    assert {len(seconds) for seconds in found["seconds"].values()} == {2}
    assert found["first"].keys() == found["seconds"].keys() == found["callback"].keys()
    for name, seconds in found["seconds"].items():
        assert all(own < whole for own, whole in zip(found["callback"][name], seconds, strict=True))
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(found["seconds"])
