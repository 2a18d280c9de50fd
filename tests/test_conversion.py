"""The DeepLIFT paper's experiment on MNIST: its protocol by hand, and its published results where the data is there.

The data lies in ``../shared/data/deeplift_mnist``, beside the repository; tests that need it skip where it is absent.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from scripts import conversion, digits

FOLDER = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "deeplift_mnist"
# What the independent re-computation calls the methods, and how many of the four conversions have a published list.
RECOMPUTED = {
    "gradient_masked": "|grad| masked",
    "guided_masked": "guided_bp masked",
    "guided_x_input": "gbp*in",
    "gradient_x_input": "grad*input",
    "ig_5": "IG-5",
    "ig_10": "IG-10",
    "rescale": "rescale",
    "revealcancel": "revealcancel",
}
UNPUBLISHED = ("rescale",)
# Largest |residual| over the mean difference from the black image. In float32 sums are exact to 2e-6 (measured); few
# midpoints leave a gap where ReLUs switch on the path: measured 2.4e-3 for five and ten.
GAPS = {"rescale": 1e-5, "revealcancel": 1e-5, "ig_5": 5e-3, "ig_10": 5e-3}


@cache
def experiment() -> conversion.Experiment:
    if not FOLDER.is_dir():
        pytest.skip(f"the digits are not there: no {FOLDER}")
    return conversion.Experiment(digits.read(FOLDER))


@cache
def recomputed() -> dict[tuple[str, str], dict[str, float]]:
    rows = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))["independent_recomputation"]
    numbers = ("n", "mean", "q25", "median", "q75", "flipped")
    return {(row["pair"], row["method"]): {key: float(row[key]) for key in numbers} for row in rows}


def check(method: str, pair: str) -> None:
    found = experiment().run(conversion.METHODS[method], pair)
    if method in UNPUBLISHED:
        assert found.verdict == ""
    else:
        assert len(found.published) == conversion.LISTED
        assert found.largest == found.published
    expected, numbers = recomputed()[pair, RECOMPUTED[method]], found.numbers()
    assert len(found.change) == expected["n"]
    for name in ("mean", "q25", "median", "q75"):
        assert numbers[name] == pytest.approx(expected[name], rel=1e-3), name
    # Three decimals are given; one image of a thousand may stand on the boundary.
    assert numbers["flipped"] == pytest.approx(expected["flipped"], abs=1.6e-3)
    if method in GAPS:
        assert found.gap <= GAPS[method]
    else:
        assert np.isnan(found.gap)


def test_the_network_is_as_accurate_as_published():
    assert experiment().accuracy == (9921, 10_000)


@pytest.mark.parametrize("method", [name for name in conversion.METHODS if name.startswith(("gradient", "guided"))])
def test_gradients_give_the_published_lists_for_one_conversion(method):
    check(method, "4->1")


@pytest.mark.slow
@pytest.mark.parametrize("pair", conversion.CONVERSIONS)
@pytest.mark.parametrize("method", conversion.METHODS)
def test_the_published_lists(method, pair):
    check(method, pair)


def test_every_published_list_is_compared():
    for pair, lists in experiment().digits.published.items():
        assert pair in conversion.CONVERSIONS
        assert set(lists) == {method.published for method in conversion.METHODS.values()} - {""}
    assert set(conversion.METHODS) == set(RECOMPUTED)
    assert {name for name, method in conversion.METHODS.items() if not method.published} == set(UNPUBLISHED)


# --- the protocol on digits of one's own ------------------------------------------------------------------------------


def test_the_pixels_above_the_threshold_are_erased_and_no_others():
    images = np.full((4, 28, 28, 1), 7.0, "float32")
    ramp = np.arange(784.0)[::-1]
    differences = np.stack([ramp - 700, ramp - 100, -ramp - 1, np.full(784, 5.0)]).reshape(images.shape)
    left = conversion.erased(images, differences).reshape(4, -1)
    assert set(np.unique(left)) == {0.0, 7.0}
    # 83 differences are positive; of 683 only 157 may go; none is; equal ones are not above the threshold.
    assert (left == 0).sum(axis=1).tolist() == [83, 157, 0, 0]
    assert (left[1, :157] == 0).all()
    assert (images == 7).all()


@pytest.fixture
def folder(tmp_path):
    """A network of random weights and forty images of noise, of the classes 0 to 3."""
    random = np.random.default_rng(0)
    shapes = [(4, 4, 1, 32), (32,), (4, 4, 32, 64), (64,), (1600, 128), (128,), (128, 10), (10,)]
    arrays = {
        name: random.normal(size=shape).astype("float32") / np.prod(shape[:-1]) ** 0.5
        for name, shape in zip(digits.ARRAYS, shapes, strict=True)
    }
    np.savez(tmp_path / digits.WEIGHTS, **arrays)
    images = random.integers(0, 256, (40, 28, 28), "uint8")
    head = bytes([0, 0, 8, 3, 0, 0, 0, 40, 0, 0, 0, 28, 0, 0, 0, 28])
    (tmp_path / f"{digits.IMAGES}.gz").write_bytes(gzip.compress(head + images.tobytes()))
    (tmp_path / digits.LABELS).write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 40]) + bytes([0, 1, 2, 3] * 10))
    return tmp_path


def run(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["conversion", *map(str, arguments)])
    return conversion.main()


def test_files_are_read_as_they_are(folder):
    found = digits.read(folder)
    assert found.images.shape == (40, 28, 28, 1)
    assert (found.images.min(), found.images.max()) == (0, 255)
    assert found.labels.tolist() == [0, 1, 2, 3] * 10
    assert found.published == {}
    with np.load(folder / digits.WEIGHTS) as arrays:
        np.testing.assert_array_equal(found.model.layers[0].kernel, arrays["conv2d_1_kernel"])
        np.testing.assert_array_equal(found.model.layers[-1].bias, arrays["dense_2_bias"])


def test_a_run_prints_a_table_or_numbers(folder, monkeypatch, capsys):
    arguments = [folder, "--methods", "gradient_x_input", "gradient_masked", "--conversions", "1->2", "3->0"]
    assert run(monkeypatch, *arguments) == 0
    accuracy, head, *rows, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"accuracy \d+\.\d\d%: \d+ of 40 test images", accuracy)
    assert re.split(" {2,}", head) == ["median change, flipped", "1->2 (10)", "3->0 (10)", "gap"]
    assert [row.split("  ")[0] for row in rows] == ["gradient x input", "|gradient|, masked"]
    assert last.startswith("no published lists to compare with; ")

    assert run(monkeypatch, *arguments, "--json") == 0
    numbers = json.loads(capsys.readouterr().out)["conversions"]["3->0"]["gradient_x_input"]
    assert f"{numbers['median']:.1f} {numbers['flipped']:.3f}" in rows[0]
    assert set(numbers["largest"]) == set(range(3, 40, 4))  # all images of class 3, by position among all images
    assert numbers["published"] is None


def test_another_list_than_the_published_one_is_a_failure(folder, monkeypatch, capsys):
    arguments = [folder, "--methods", "gradient_x_input", "--conversions", "1->2"]
    assert run(monkeypatch, *arguments, "--json") == 0
    found = json.loads(capsys.readouterr().out)["conversions"]["1->2"]["gradient_x_input"]["largest"]
    for published, code, verdict in ((found, 0, "1 of 1 "), (found[::-1], 1, "0 of 1 ")):
        lists = {"1->2": {"grad_times_inp": published}}
        text = json.dumps({"top10_test_indices_by_change_in_logodds": lists})
        (folder / digits.PUBLISHED).write_text(text, encoding="utf-8")
        assert run(monkeypatch, *arguments) == code
        shown = capsys.readouterr().out
        assert f"{verdict}published lists equal" in shown
        assert ("DIFFERS" in shown) == bool(code)


def test_methods_share_what_they_explain(folder, monkeypatch):
    made, explained = [], []
    gradient = conversion._gradient

    def make(model):
        made.append(model)
        analyzer = gradient(model)
        explain = analyzer.explain
        monkeypatch.setattr(
            analyzer, "explain", lambda *args, **options: explained.append(args[1]) or explain(*args, **options)
        )
        return analyzer

    one, other = (conversion.Method(name, make) for name in ("one", "other"))
    shared = conversion.Experiment(digits.read(folder))
    for method in (one, other):
        for pair in ("1->2", "1->3"):
            shared.run(method, pair)
    assert len(made) == 1
    assert explained == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (digits.WEIGHTS, None, f"there is no {digits.WEIGHTS}"),
        (digits.LABELS, None, f"there is neither {digits.LABELS} nor {digits.LABELS}.gz"),
        (digits.LABELS, b"\0\0\x08\x01\0\0\0\x28", "expected MNIST's idx format, unsigned bytes on 1 axes"),
        (digits.LABELS, b"\0\0\x08\x03" + bytes(12), "expected MNIST's idx format, unsigned bytes on 1 axes"),
        (digits.LABELS, b"\0\0\x08\x01\0\0\0\x01\x05", "40 images, but 1 labels"),
    ],
    ids=["no weights", "no labels", "cut off", "other axes", "too few"],
)
def test_folders_are_checked(name, content, message, folder, monkeypatch, capsys):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    assert run(monkeypatch, folder) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arrays", "message"),
    [({}, "there is no array conv2d_1_kernel, conv2d_1_bias"), ({"dense_2_bias": 3}, r"dense_2_bias has shape \(3,\)")],
)
def test_weights_are_checked(arrays, message, folder):
    with np.load(folder / digits.WEIGHTS) as file:
        kept = dict(file) if arrays else {}
    np.savez(folder / digits.WEIGHTS, **(kept | {name: np.zeros(size) for name, size in arrays.items()}))
    with pytest.raises(digits.DigitsError, match=message):
        digits.read(folder)


@pytest.mark.parametrize("arguments", [["--methods", "magic"], ["--conversions", "8->8"], ["--conversions", "8-3"]])
def test_arguments_are_checked(arguments, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "anywhere", *arguments)
    assert re.search("invalid choice: 'magic'|expected two different digits as in '8->3'", capsys.readouterr().err)
