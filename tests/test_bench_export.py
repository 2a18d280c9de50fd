"""The benchmark of exports measures what it says, and says what fails."""

from __future__ import annotations

import json
import sys

from scripts import bench_export


def run(monkeypatch, tmp_path, *arguments):
    command = [
        "bench_export",
        "--models",
        "digits",
        "--rounds",
        "2",
        "--folder",
        str(tmp_path),
        "--json",
        "result.json",
    ]
    monkeypatch.setattr(sys, "argv", [*command, *arguments])
    code = bench_export.main()
    return code, json.loads((tmp_path / "result.json").read_text())[0]


def test_sizes_and_latencies(monkeypatch, tmp_path, capsys):
    code, result = run(monkeypatch, tmp_path, "--methods", "gradient", "--batch", "1", "3")
    assert code == 0
    assert result["sizes"]["gradient"] > result["plain"] > 4 * result["parameters"]
    assert [(row["batch"], row["signature"]) for row in result["rows"]] == [
        (1, "serving_default"), (1, "gradient"), (3, "serving_default"), (3, "gradient"),
    ]  # fmt: skip
    plain, gradient = result["rows"][:2]
    assert plain["median"] == 1
    first, second = (a / b for a, b in zip(gradient["seconds"], plain["seconds"], strict=True))
    assert gradient["median"] == (first + second) / 2
    told = capsys.readouterr().out
    assert f"{result['sizes']['gradient']} bytes" in told
    assert "serving_default" in told


def test_what_fails_is_named(monkeypatch, tmp_path, capsys):
    code, result = run(monkeypatch, tmp_path, "--methods", "gradient", "deep_taylor.bounded", "--batch", "1")
    assert code == 1
    assert "needs" in result["rows"][2]["error"]
    assert "fails: ArgumentError" in capsys.readouterr().out
