from __future__ import annotations

import numpy as np
import pytest

from kxai import plots
from kxai.errors import ArgumentError, InputError

RNG = np.random.default_rng(0)
NO_TIME = np.array(["2026", "NaT"], "datetime64[Y]")


def colours(axes):
    """The coloured cells: their edges and colours."""
    (mesh,) = axes.collections
    return mesh.get_coordinates()[0, :, 0], np.asarray(mesh.get_array())[0]


def test_every_step_has_the_colour_of_its_relevance():
    relevance, values = RNG.normal(size=(2, 7, 3)), RNG.normal(size=(2, 7, 3))
    relevance[0, 2, 1] = 0
    figure = plots.series(relevance, values, clip=100)
    bound = np.abs(relevance).max()
    for row in range(2):
        for channel in range(3):
            axes = figure.axes[row * 3 + channel]
            edges, cells = colours(axes)
            np.testing.assert_array_equal(cells, plots.diverging(relevance[row, :, channel] / bound))
            np.testing.assert_allclose(edges, [0, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6])
            np.testing.assert_array_equal(axes.lines[0].get_ydata(), values[row, :, channel])
            assert axes.get_ylabel() == f"channel {channel}"
    assert (colours(figure.axes[1])[1][2] == plots.diverging(np.array(0.0))).all()


def test_one_number_per_step_is_shown_on_every_channel():
    relevance, values = RNG.normal(size=(1, 5)), RNG.normal(size=(1, 5, 2))
    figure = plots.series(relevance, values, names=["a", "b"])
    np.testing.assert_array_equal(colours(figure.axes[0])[1], colours(figure.axes[1])[1])
    same = plots.series(relevance[..., np.newaxis], values)
    np.testing.assert_array_equal(colours(figure.axes[0])[1], colours(same.axes[0])[1])


def test_time_is_the_axis():
    relevance = np.array([[1.0, 2.0, 3.0]])
    edges, _ = colours(plots.series(relevance, relevance, time=np.array([0.0, 1.0, 10.0])).axes[0])
    np.testing.assert_allclose(edges, [0, 0.5, 5.5, 10])
    days = np.array(["2026-01-01", "2026-01-02", "2026-03-01"], "datetime64[D]")
    figure = plots.series(relevance, relevance, time=days)
    edges, _ = colours(figure.axes[0])
    np.testing.assert_allclose(np.diff(edges), [0.5, 29.5, 29])
    figure.canvas.draw()
    assert any("Feb" in label.get_text() for label in figure.axes[0].get_xticklabels())


def test_methods_stand_below_each_other_and_state_their_scales():
    values = np.ones((2, 4))
    figure = plots.series({"one": values, "two": -2 * values}, values, titles=["a", "b"])
    assert [axes.get_title(loc="left") for axes in figure.axes[:4]] == ["a   one", "a   two", "b   one", "b   two"]
    assert [axes.get_title(loc="right") for axes in figure.axes[:4]] == ["±1", "±2"] * 2
    assert figure.axes[4].get_xlabel() == "each method by its own ±bound"
    together = plots.series({"one": values, "two": -2 * values}, values, scale="figure")
    assert [axes.get_title(loc="right") for axes in together.axes[:4]] == [""] * 4
    assert (colours(together.axes[0])[1] == plots.diverging(np.array(0.5))).all()


def test_a_single_step_is_drawn():
    edges, cells = colours(plots.series(np.ones((1, 1)), np.ones((1, 1))).axes[0])
    assert edges.tolist() == [-0.5, 0.5]
    assert len(cells) == 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plots.series(np.ones(5), np.ones((1, 5))), ArgumentError, "no time series together"),
        (lambda: plots.series(np.ones((1, 5)), np.ones((1, 6))), ArgumentError, r"\(1, 5, 1\), values \(1, 6, 1\)"),
        (lambda: plots.series(np.ones((1, 5, 2)), np.ones((1, 5))), ArgumentError, "no time series together"),
        (lambda: plots.series(np.ones((1, 5, 2)), np.ones((1, 5, 2, 2))), ArgumentError, "no time series together"),
        (lambda: plots.series({}, np.ones((1, 5))), ArgumentError, "no time series together"),
        (
            lambda: plots.series(np.ones((1, 2)), np.array([[1.0, np.nan]])),
            InputError,
            "values cannot be drawn",
        ),
        (lambda: plots.series(np.array([[1.0, np.nan]]), np.ones((1, 2))), InputError, "Relevance cannot be drawn"),
        (lambda: plots.series(np.ones((1, 2)), np.array([["a", "b"]])), InputError, "values[^$]*real numbers[^$]*<U1"),
        (lambda: plots.series(np.ones((1, 2)), np.ones((1, 2)), names=["a", "b"]), ArgumentError, "1, one per channel"),
        (lambda: plots.series(np.ones((1, 2)), np.ones((1, 2)), titles=[]), ArgumentError, "titles do not fit"),
        (
            lambda: plots.series(np.ones((1, 2)), np.ones((1, 2)), time=[1.0]),
            ArgumentError,
            r"time does not fit[^$]*\(2,\)",
        ),
        (lambda: plots.series(np.ones((1, 2)), np.ones((1, 2)), time=[2.0, 2.0]), ArgumentError, "does not increase"),
        (
            lambda: plots.series(np.ones((1, 2)), np.ones((1, 2)), time=[0.0, np.inf]),
            InputError,
            "time cannot be drawn",
        ),
        (
            lambda: plots.series(np.ones((1, 2)), np.ones((1, 2)), time=np.array(["2026", "NaT"], "M8[Y]")),
            InputError,
            "time",
        ),
        (lambda: plots.series(np.ones((1, 2)), np.ones((1, 2)), scale="row"), ArgumentError, "scale is out of range"),
        (lambda: plots.series(np.ones((1, 2)), np.ones((1, 2)), clip=0), ArgumentError, "clip is out of range"),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 40.0], ["0", "20", "40"]),
        ([101_300.0, 101_350.0], ["101300", "101325", "101350"]),
        ([0.0, 2e9], ["0", "1e+09", "2e+09"]),
        ([-3e-7, 3e-7], ["−2.5e−07", "0", "2.5e−07"]),
        ([5.0, 5.0], ["4.4", "4.8", "5.2"]),
    ],
)
def test_numbers_of_the_axis_are_written_in_full(values, expected):
    axes = plots.series(np.ones((1, 2)), np.array([values])).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == expected
    assert not axes.yaxis.get_offset_text().get_text()


def test_steps_are_whole():
    for steps, expected in ((1, [0]), (3, [0, 1, 2])):
        figure = plots.series(np.ones((1, steps)), np.ones((1, steps)))
        figure.canvas.draw()
        low, high = figure.axes[0].get_xlim()
        assert [tick for tick in figure.axes[0].get_xticks() if low <= tick <= high] == expected
    halves = plots.series(np.ones((1, 3)), np.ones((1, 3)), time=np.array([0.0, 0.5, 1.0]))
    halves.canvas.draw()
    assert (halves.axes[0].get_xticks() % 1 > 0).any()
