"""Letter logos: what is measured is where the letters end, in units of relevance."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.patches import PathPatch

from kxai import plots
from kxai.errors import ArgumentError, InputError
from kxai.plots.letters import letter_colours
from tests.plots.vision import VISIONS, lab

RNG = np.random.default_rng(0)
PROTEIN = "ACDEFGHIKLMNPQRSTVWY"


def spans(axes):
    """Of every letter drawn: (position, letter) -> (lowest, highest point)."""
    found = {}
    for patch in axes.findobj(PathPatch):
        path = patch.get_path()
        for step in {round(x) for x in path.vertices[:, 0]}:
            own = np.abs(path.vertices[:, 0] - step) < 0.5
            found[step, patch.get_gid()] = (path.vertices[own, 1].min(), path.vertices[own, 1].max())
    return found


def test_letters_are_as_high_as_their_relevance():
    values = RNG.normal(size=(1, 30, 4))
    values[0, 3] = 0
    found = spans(plots.logo(values).axes[0])
    assert set(found) == {(step, letter) for step in range(30) if step != 3 for letter in "ACGT"}
    for (step, letter), (low, high) in found.items():
        height = values[0, step, "ACGT".index(letter)]
        np.testing.assert_allclose(high - low, abs(height), rtol=1e-9)
        # Positive above the axis and negative below, on top of all of the same sign that are smaller.
        same = [v for v in values[0, step] if v * height > 0 and abs(v) < abs(height)]
        np.testing.assert_allclose(low if height > 0 else high, sum(same), atol=1e-12)


def test_letters_below_the_axis_hang_head_down():
    both = [plots.logo(np.array([[[value, 0, 0, 0]]])) for value in (1.0, -1.0)]
    up, down = (figure.axes[0].findobj(PathPatch)[0].get_path() for figure in both)
    np.testing.assert_allclose(up.vertices * [1, -1], down.vertices, atol=1e-12)
    # The bar of an A lies in its lower half: a point in the foot is outside, the top is inside.
    assert up.contains_point((0.0, 0.95))
    assert not up.contains_point((0.0, 0.05))


def test_the_present_letter_gets_the_relevance_of_all_channels():
    values = RNG.normal(size=(2, 6, 4))
    texts = ["ACGTAC", "TTGG"]
    onehot = np.array([[[letter == one for one in "ACGT"] for letter in text.ljust(6, "-")] for text in texts], float)
    drawn = [plots.logo(values, sequences=texts), plots.logo(values.sum(axis=-1), sequences=onehot)]
    for figure in drawn:
        for row, axes in enumerate(figure.axes):
            found = spans(axes)
            assert set(found) == set(enumerate(texts[row]))
            for (step, _), ends in found.items():
                np.testing.assert_allclose(sorted([*ends, 0.0])[1], 0, atol=1e-12)
                np.testing.assert_allclose(sum(ends), values[row, step].sum(), rtol=1e-9)
        rest = f"relevance {values[1, 4:].sum():.3g} at steps without a letter".replace("-", "−")
        assert [axes.get_title(loc="right") for axes in figure.axes] == ["", rest]


def test_window_and_lines():
    values = RNG.normal(size=(1, 50, 4))
    full, part = spans(plots.logo(values).axes[0]), plots.logo(values, start=7, stop=31, per_line=10)
    assert len(part.axes) == 3
    found = {}
    for number, axes in enumerate(part.axes):
        assert axes.get_xlim() == (6.5 + 10 * number, 16.5 + 10 * number)
        assert all(6.5 + 10 * number < tick < 16.5 + 10 * number for tick in axes.get_xticks())
        found |= spans(axes)
    assert found == {key: pytest.approx(ends) for key, ends in full.items() if 7 <= key[0] < 31}


def test_methods_and_samples_share_axes_as_told():
    maps = {"one": RNG.normal(size=(2, 5, 4)), "two": 10 * RNG.normal(size=(2, 5, 4))}
    for scale, count in (("figure", 1), ("method", 2), ("panel", 4)):
        figure = plots.logo(maps, titles=["a", "b"], scale=scale)
        assert [axes.get_title(loc="left") for axes in figure.axes] == ["a   one", "a   two", "b   one", "b   two"]
        assert len({axes.get_ylim() for axes in figure.axes}) == count
        for axes in figure.axes:
            low, high = axes.get_ylim()
            assert all(low < bottom < top < high for bottom, top in spans(axes).values())


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("alphabet", ["ACGT", "ACGU", PROTEIN])
def test_colours_of_letters_stay_apart(alphabet, vision):
    colours = sorted(set(letter_colours(alphabet).values()))
    seen = [lab([int(colour[i : i + 2], 16) for i in (1, 3, 5)], vision) for colour in colours]
    apart = [np.linalg.norm(one - other) for i, one in enumerate(seen) for other in seen[:i]]
    # A difference of 10 in CIELAB is seen at a glance; letters have shapes besides.
    assert min(apart) > 20


def test_colours_are_chosen():
    figure = plots.logo(np.ones((1, 2, 2)), alphabet="AX", colors={"X": "black"})
    assert [patch.get_facecolor()[:3] == (0, 0, 0) for patch in figure.axes[0].findobj(PathPatch)] == [False, True]
    assert letter_colours("AN")["N"] == letter_colours("A-")["-"]
    assert letter_colours("NQD")["N"] != letter_colours("AN")["N"]  # asparagine, any nucleotide


def test_every_letter_of_the_alphabet_is_drawn_within_its_place():
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ-*?abc"
    values = np.eye(len(alphabet))[np.newaxis]
    found = spans(plots.logo(values, alphabet=alphabet).axes[0])
    assert set(found) == set(enumerate(alphabet))
    np.testing.assert_allclose(list(found.values()), [(0, 1)] * len(alphabet), atol=1e-9)


def test_a_thousand_positions_are_drawn_at_once():
    """In a line of them, one shape per letter of the alphabet: letter by letter it takes half a minute."""
    lines = plots.logo(RNG.normal(size=(1, 1000, 4))).axes
    assert 1 < len(lines) < 50
    assert {len(line.findobj(PathPatch)) for line in lines} == {4}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plots.logo(np.ones((1, 5))), ArgumentError, r"no relevance of sequences[^$]*\(1, 5\)[^$]*sequences="),
        (lambda: plots.logo(np.ones((1, 5, 4, 1))), ArgumentError, "no relevance of sequences"),
        (lambda: plots.logo({}), ArgumentError, "no relevance of sequences"),
        (lambda: plots.logo({"a": np.ones((1, 5, 4)), "b": np.ones((1, 6, 4))}), ArgumentError, "one shape"),
        (lambda: plots.logo(np.ones((1, 5, 4)), alphabet="ACG"), ArgumentError, r"alphabet does not fit[^$]*4 letters"),
        (lambda: plots.logo(np.ones((1, 5, 4)), alphabet="ACGA"), ArgumentError, "This is no alphabet[^$]*'ACGA'"),
        (lambda: plots.logo(np.ones((1, 5, 4)), alphabet="AC T"), ArgumentError, "This is no alphabet"),
        (lambda: plots.logo(np.full((1, 5, 4), np.nan)), InputError, "Relevance cannot be drawn[^$]*NaN"),
        (lambda: plots.logo({"m": np.full((1, 5, 4), np.inf)}), InputError, "Relevance of m cannot be drawn"),
        (lambda: plots.logo(np.ones((1, 5)), sequences=["ACGTNN"]), ArgumentError, "1 texts of at most 5 letters"),
        (lambda: plots.logo(np.ones((1, 5)), sequences="ACGTA"), ArgumentError, "sequences do not fit[^$]*one text"),
        (lambda: plots.logo(np.ones((2, 5)), sequences=["A"]), ArgumentError, "sequences do not fit[^$]*2 texts"),
        (lambda: plots.logo(np.ones((1, 5)), sequences=["ACNa"]), ArgumentError, "N, a[^$]*'ACGTNa'"),
        (lambda: plots.logo(np.ones((1, 5)), sequences=np.ones((1, 5, 3))), ArgumentError, r"\(1, 5, 4\) for"),
        (lambda: plots.logo(np.ones((1, 5)), sequences=np.ones((1, 5, 4))), ArgumentError, "not one-hot"),
        (lambda: plots.logo(np.ones((1, 5, 4)), start=3, stop=3), ArgumentError, "window[^$]*<= 5[^$]*start=3, stop=3"),
        (lambda: plots.logo(np.ones((1, 5, 4)), stop=6), ArgumentError, "window does not lie"),
        (lambda: plots.logo(np.ones((1, 5, 4)), start=-2), ArgumentError, "window does not lie"),
        (lambda: plots.logo(np.ones((1, 5, 4)), start=1.0), ArgumentError, "window does not lie"),
        (lambda: plots.logo(np.ones((1, 5, 4)), per_line=0), ArgumentError, "per_line is out of range"),
        (lambda: plots.logo(np.ones((1, 5, 4)), titles=["a", "b"]), ArgumentError, "titles do not fit"),
        (lambda: plots.logo(np.ones((1, 5, 4)), scale="row"), ArgumentError, "scale is out of range"),
        (lambda: plots.logo(np.ones((1, 5, 4)), colors={"N": "red"}), ArgumentError, "colors names what is no letter"),
        (lambda: plots.logo(np.ones((1, 5, 4)), colors={"A": "rde"}), ArgumentError, "colors holds no colours[^$]*rde"),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()
