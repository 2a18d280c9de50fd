"""The benchmark compares what it says it compares, and says what fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kxai
from scripts import architectures, bench, bench_methods, bench_peers, bench_worker, peer_worker, rounds
from scripts.bench_methods import DEEPLIFT, FORWARD, SCORE_CAM, SMOOTHGRAD, TAPE, Method


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    return bench.main()


@pytest.fixture
def here(monkeypatch):
    """The processes' functions run in this one."""
    monkeypatch.setattr(bench, "apart", lambda function, *values: getattr(bench_worker, function)(*values))


def answering(monkeypatch, parameters=7, **seconds):
    """Timings as given: per label, a list of seconds, or a text that says why there are none."""
    rows = {
        label: {"error": times} if isinstance(times, str) else {"seconds": times} for label, times in seconds.items()
    }
    answers = {
        "timings": {"rows": rows, "parameters": parameters, "framework": "TF 2"},
        "first_result": {"first": 0.5, "peak": 100.0},
    }
    monkeypatch.setattr(bench, "apart", lambda function, *values: answers[function])


# Timing in turns


def test_functions_take_turns():
    calls = []
    makers = {name: lambda name=name: lambda x: calls.append((name, x)) for name in "abc"}
    found = rounds.timed(makers, 5, 4, seldom=("c",))
    assert [name for name, x in calls] == list("aabbc" + "abc" + "ab" + "ab" + "abc")
    assert {x for name, x in calls} == {5}
    assert [time is None for time in found["c"]["seconds"]] == [False, True, True, False]
    assert all(time > 0 for name in "ab" for time in found[name]["seconds"])


def test_what_fails_is_left_out_with_its_reason():
    def fails():
        raise ValueError("first line\nsecond line")

    found = rounds.timed({"a": lambda: abs, "b": fails, "c": lambda: lambda x: fails()}, 5, 1)
    assert list(found) == ["a", "b", "c"]
    assert list(found["a"]) == ["seconds"]
    assert found["b"] == found["c"] == {"error": "ValueError: first line"}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError(), "KeyError"),
        (
            ValueError("in user code:\n\n  File 'a.py'\n    LookupError: no Relu6\n"),
            "ValueError: LookupError: no Relu6",
        ),
        (ValueError("x" * 500), "ValueError: " + "x" * 145 + "..."),
    ],
)
def test_a_reason_is_one_line(error, text):
    assert rounds.reason(error) == text


def test_ratios_are_of_one_round_and_of_one_evaluation():
    found = rounds.ratios([2.0, None, 9.0], [1.0, 5.0, 3.0], 2)
    assert found == {"median": 1.25, "min": 1.0, "max": 1.5}


# Which rows


def test_every_method_of_the_tables_has_a_row_of_its_own():
    for table in bench_methods.NETWORKS.values():
        labels = [method.label for method in table]
        assert len(set(labels)) == len(labels)


def test_targets_belong_to_their_network():
    def targets(network):
        return {method.label: method.target for method in bench_methods.chosen(network, None)}

    assert targets("VGG16")["lrp.gamma"] == 1.8
    assert targets("ResNet50")["lrp.gamma"] == 2.2
    assert targets("ResNet50")["deeplift"] == targets("VGG16")["deeplift"] == 1.2
    assert targets("Small").keys() == targets("VGG16").keys()
    assert set(targets("Small").values()) == {None}


def test_names_choose_rows():
    assert [method.label for method in bench_methods.chosen("VGG16", ["sensitivity", "deeplift"])] == [
        "sensitivity", "deeplift", "deeplift (own references)",
    ]  # fmt: skip
    (method,) = bench_methods.chosen("LSTM", ["smoothgrad"])
    assert (method.label, method.per, method.target) == ("smoothgrad / sample", "sample", None)


# kxai


def test_bench_compares_within_a_round(monkeypatch):
    seconds = {TAPE: [1.0, 2.0, 1.0], "lrp.epsilon": [1.1, 2.4, 9.0], "gradient": [1.0, 2.0, 1.0]}
    answering(monkeypatch, **seconds)
    monkeypatch.setattr(sys, "argv", ["bench", "--methods", "gradient", "lrp.epsilon"])
    result = bench.measure("VGG16", 8, bench.parse())
    epsilon = result["rows"][2]
    assert [epsilon[key] for key in ("min", "median", "max", "target")] == [1.1, 1.2, 9.0, 1.15]
    assert "<= 1.15 MISSED" in bench.table(result, targets=True)
    assert "1.15" not in bench.table(result, targets=False)


def test_scores_without_derivatives_are_compared_with_the_forward_pass(monkeypatch):
    answering(monkeypatch, **{TAPE: [1.0, 1.0], FORWARD: [0.5, 0.5], SCORE_CAM.label: [1.0, None]})
    monkeypatch.setattr(sys, "argv", ["bench", "--methods", "score_cam"])
    forward, score_cam = bench.measure("VGG16", 8, bench.parse())["rows"][1:]
    assert forward["median"] == 0.5
    assert score_cam["median"] == 2.0


@pytest.mark.parametrize(("targets", "code"), [(["--targets"], 1), ([], 0)])
def test_bench_fails_where_a_target_is_missed(targets, code, monkeypatch, capsys):
    answering(monkeypatch, **{TAPE: [1.0], "lrp.gamma": [2.0]})
    assert run(monkeypatch, "--models", "VGG16", "--methods", "lrp.gamma", *targets) == code


def test_bench_fails_where_a_method_does(monkeypatch, capsys):
    answering(monkeypatch, **{TAPE: [1.0], "gradient": "ValueError: why"})
    assert run(monkeypatch, "--models", "VGG16", "--batch", "1", "--methods", "gradient") == 1
    assert capsys.readouterr().out.splitlines()[-2].split(maxsplit=1) == ["gradient", "fails: ValueError: why"]


def test_bench_needs_a_gradient_to_compare_with(monkeypatch):
    answering(monkeypatch, **{TAPE: "ValueError: why"})
    with pytest.raises(SystemExit, match="error: no gradient of VGG16 to compare with: ValueError: why"):
        run(monkeypatch, "--models", "VGG16", "--methods", "gradient")


def test_a_small_network_from_end_to_end(here, monkeypatch, capsys, tmp_path):
    arguments = ["--models", "Small", "--size", "16", "--batch", "2", "--rounds", "1", "--methods", "gradient"]
    assert run(monkeypatch, *arguments, "lrp.alpha_beta", "lrp.epsilon_gamma_box", "--json", str(tmp_path / "a")) == 0
    captured = capsys.readouterr()
    title, head, *rows, _ = captured.out.splitlines()
    assert title.startswith("Small, size 16, batch 2, 1 rounds; 1 = ")
    assert head.split() == ["method", "median", "min-max", "/", "first", "peak"]
    assert [row.split()[0] for row in rows] == [TAPE, "gradient", "lrp.alpha_beta", "lrp.epsilon_gamma_box"]
    (result,) = json.loads((tmp_path / "a").read_text())
    assert result["parameters"] == architectures.build("Small", 16).count_params()
    assert all(row["median"] > 0 and row["peak"] > 0 for row in result["rows"])
    # Quiet in a pipe; the machine may be busy.
    assert [line for line in captured.err.splitlines() if not line.startswith("warning: load")] == []


def test_the_units_are_what_they_say():
    model = architectures.build("Small", 16)
    x = architectures.sample(model, 3)
    for method in (TAPE, "gradient"):
        relevance = bench_worker.runner(model, Method(method), x)(x)
        # Of the score that the model returns, a softmax; kxai explains the logit.
        expected = kxai.Gradient(model, strip_softmax=method != TAPE).explain(x, 0).relevance
        np.testing.assert_allclose(relevance, expected, atol=1e-6)
    np.testing.assert_allclose(bench_worker.runner(model, Method(FORWARD), x)(x), model(x), atol=1e-6)


@pytest.mark.filterwarnings("ignore:Deep Taylor explains positive logits")
@pytest.mark.parametrize("method", bench_methods.CONVOLUTIONAL, ids=lambda method: method.label)
def test_every_row_has_arguments_that_its_method_takes(method):
    model = architectures.build("Small", 16)
    x = architectures.sample(model, 2)
    assert np.isfinite(bench_worker.runner(model, method, x)(x)).all()


def test_what_a_ratio_is_divided_by():
    model = architectures.build("Small", 16)
    counted = {method.label: bench_worker.evaluations(model, method) for method in (DEEPLIFT, SMOOTHGRAD, SCORE_CAM)}
    assert counted == {"deeplift": 1, "smoothgrad / sample": bench_methods.SAMPLES, "score_cam / channel": 8}


def test_a_network_without_maps_says_so():
    model = keras.Sequential([keras.Input((4, 3)), keras.layers.Dense(2)], name="flat")
    with pytest.raises(LookupError, match="flat has no map that is smaller than its input"):
        architectures.first_map(model)


# Peers


def fake_python(folder, text):
    """An interpreter that runs this shell script whatever it is asked."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


REQUEST = {"peer": "captum", "model": "Small", "size": 16, "batch": 2, "rounds": 1, "methods": []}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("echo boom >&2; exit 3", "its process ends with exit code 3: boom"),
        ('echo \'{"status": "begins"}\'; kill -9 $$', "its process ends with exit code -9: no message"),
        ("echo not JSON", "its process fails: Expecting value"),
    ],
)
def test_a_peer_that_dies_is_text(text, expected, tmp_path):
    answer = bench_peers.ask(fake_python(tmp_path, text), REQUEST)
    assert answer["error"].startswith(expected)


def test_a_peer_without_python_is_text(tmp_path):
    assert "No such file" in bench_peers.ask(tmp_path / "python", REQUEST)["error"]


def test_a_peer_that_is_not_installed_is_text():
    # The real worker, in an environment that lacks the library.
    assert bench_peers.ask(sys.executable, {**REQUEST, "peer": "captum"}) == {
        "error": "ModuleNotFoundError: No module named 'captum'"
    }


def test_an_environment_that_cannot_be_made_is_a_cell(here, monkeypatch, capsys, tmp_path):
    (tmp_path / "file").touch()
    arguments = ["--models", "Small", "--size", "16", "--batch", "1", "--rounds", "1", "--methods", "deeplift"]
    run(monkeypatch, *arguments, "--peers", "captum", "--environments", str(tmp_path / "file"))
    captured = capsys.readouterr()
    lines = [line.split(maxsplit=1) for line in captured.out.splitlines()]
    (cell, *_) = [rest for first, *rest in filter(None, lines) if first == "captum"]
    assert cell[0].startswith("no environment: ")
    assert "Not a directory" in cell[0]
    assert "-- installing torch==" in captured.err


def test_what_pip_says_is_the_reason(monkeypatch, tmp_path):
    def fails(command, **options):
        raise subprocess.CalledProcessError(1, command, stderr="Looking in indexes\nERROR: No matching distribution\n")

    monkeypatch.setattr(subprocess, "run", fails)
    found = bench_peers.environments(["SHAP", "tf-keras-vis"], tmp_path)
    assert found == dict.fromkeys(["SHAP", "tf-keras-vis"], "no environment: ERROR: No matching distribution")


def test_an_environment_is_made_once(monkeypatch, tmp_path, capsys):
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, **options: commands.append(command))
    (tmp_path / "torch").mkdir()
    for wanted in (["a==1"], ["a==1"], ["a==2"]):
        assert bench_peers.interpreter(tmp_path / "torch", wanted).is_relative_to(tmp_path / "torch")
    assert [command[-1] for command in commands] == [tmp_path / "torch", "a==1", tmp_path / "torch", "a==2"]


def test_peers_run_on_the_same_tensorflow():
    wanted = bench_peers.requirements("tensorflow")
    assert f"keras=={keras.__version__}" in wanted
    assert [name for name in wanted if name.startswith("tensorflow")]


def answer_of(**rows):
    rows = {label: {"seconds": seconds, "evaluations": 1} for label, seconds in rows.items()}
    return {"framework": "torch 2", "parameters": 7, "rows": rows}


def test_a_peer_is_compared_with_its_own_framework():
    answer = bench_peers.compared(answer_of(tape=[2.0, 4.0], deeplift=[4.0, 12.0]), 7)
    assert answer["rows"]["deeplift"]["median"] == 2.5
    assert "2.50     2.00-3.00    8.000 s" in bench_peers.cell(answer, "deeplift")
    assert bench_peers.cell(answer, "score_cam / channel") == ""


def test_another_network_is_not_compared():
    answer = bench_peers.compared(answer_of(tape=[1.0]), 8)
    assert answer == {"error": "another network: 7 parameters, not 8"}


def test_the_table_of_peers(monkeypatch):
    answering(monkeypatch, **{TAPE: [1.0], DEEPLIFT.label: [1.5], "deeplift (own references)": "ValueError: why"})
    monkeypatch.setattr(sys, "argv", ["bench", "--methods", "deeplift"])
    result = bench.measure("VGG16", 8, bench.parse())
    answers = {
        "captum": answer_of(**{label: [6.0] for label in (DEEPLIFT.label, "deeplift (own references)")}, tape=[2.0]),
        "SHAP": {"error": "ValueError: its reason"},
    }
    answers["captum"]["rows"]["deeplift"]["note"] = "its sums are off by 4%"
    monkeypatch.setattr(bench_peers, "ask", lambda python, request: answers[request["peer"]])
    result["peers"] = bench_peers.measure(
        result, list(bench_peers.PEERS), dict.fromkeys(bench_peers.PEERS, Path("python"))
    )
    assert list(result["peers"]) == ["captum", "SHAP"]  # tf-keras-vis has nothing to say
    assert bench_peers.table(result).splitlines()[3:] == [
        "method                       by               ratio       min-max    seconds",
        "tape                         kxai              1.00     1.00-1.00    1.000 s",
        "                             captum            1.00     1.00-1.00    2.000 s",
        "                             SHAP             ValueError: its reason",
        "deeplift                     kxai              1.50     1.50-1.50    1.500 s",
        "                             captum            3.00     3.00-3.00    6.000 s   its sums are off by 4%",
        "                             SHAP             ValueError: its reason",
        "deeplift (own references)    kxai             fails: ValueError: why",
        "                             captum            3.00     3.00-3.00    6.000 s",
        "                             SHAP: no such method",
        "kxai runs on TF 2",
        "captum runs on torch 2",
    ]


def test_sums_that_miss_are_measured():
    relevance = np.array([[[1.0, 1.0]], [[3.0, 1.0]]])
    assert peer_worker.gap(relevance, np.array([2.0, 4.0])) == 0
    assert peer_worker.gap(relevance, np.array([2.0, 5.0])) == 0.2
