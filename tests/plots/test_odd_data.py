"""Figures of data that are extreme in shape, size or type."""

from __future__ import annotations

import numpy as np
import pytest

import kxai
from kxai.errors import ArgumentError, UnknownNameError
from kxai.plots import bars, figure, logo, overlay, pictures, sheet, strip


@pytest.mark.parametrize("shape", [(500, 20), (20, 500), (1, 2000), (2000, 1)])
def test_extreme_proportions_stay_readable(shape):
    maps = np.random.default_rng(0).normal(size=(2, *shape))
    for drawn in (figure({"a": maps}), pictures(maps[..., np.newaxis], ["a", "b"]), sheet(maps)):
        assert max(drawn.get_size_inches()) < 20
    # A picture fills its panel instead of leaving a line in the middle of it.
    for drawn in (figure({"a": maps}), pictures(maps[..., np.newaxis], ["a", "b"])):
        axes = drawn.axes[0]
        axes.apply_aspect()
        box = axes.get_position(original=False).transformed(drawn.transFigure)
        assert 0.25 * 0.99 <= box.width / box.height <= 4.01


def test_a_sheet_keeps_proportions_that_are_not_extreme():
    # What is not drawn is the rim beside a picture, not a part of its width.
    extents = [image.get_extent() for image in sheet(np.ones((1, 100, 50)), bound=1.0).axes[0].images]
    assert [round((right - left) / (top - base), 6) for left, right, base, top in extents] == [0.5]


def test_no_pixel_is_left_out():
    """A line of one pixel in a picture that has more lines than dots."""
    maps = np.zeros((1, 1200, 1200))
    seen = []
    for line in range(600, 604):
        maps[:] = 0
        maps[:, line] = 1
        drawn = figure({"a": maps}, clip=100)
        drawn.canvas.draw()
        dots = np.asarray(drawn.canvas.buffer_rgba())[..., :3].astype(int)
        height, width = dots.shape[:2]
        left, bottom, right, top = drawn.axes[0].get_position().extents
        panel = dots[int((1 - top) * height) + 3 : int((1 - bottom) * height) - 3, int((left + right) / 2 * width)]
        seen.append(int((panel[:, 0] - panel[:, 2]).max()))  # red
    assert min(seen) > 10


def test_figures_that_cannot_be_saved_are_refused():
    with pytest.raises(ArgumentError, match=r"too large to be saved(.|\n)*433 inches(.|\n)*fewer samples"):
        figure({"a": np.ones((400, 4, 4))})


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.uint16])
def test_whole_numbers_are_drawn_as_floats(dtype):
    values = np.zeros((1, 600)) if dtype is bool else np.full((1, 600), 3.0)
    values[0, 5] = 1 if dtype is bool else np.iinfo(dtype).min or 200
    given = values.astype(dtype)

    def pixels(array):
        return strip(array, clip=100).axes[0].images[0].get_array()

    np.testing.assert_array_equal(pixels(given), pixels(given.astype(np.float64)))
    # The magnitude of the least int8 is none of its own type.
    maps = given.reshape(1, 20, 30)
    foot = [drawn.axes[-1].get_xlabel() for drawn in (figure({"a": maps}), figure({"a": maps.astype(float)}))]
    assert foot[0] == foot[1]


def test_nothing_is_zero_without_a_sign():
    zeros = figure({"a": np.zeros((1, 4, 4))}).axes[-1]
    assert [label.get_text() for label in zeros.get_xticklabels()] == ["", "0", ""]
    drawn = logo(np.zeros((1, 3, 4)))
    assert [label.get_text() for label in drawn.axes[0].get_yticklabels()] == ["0"]


def test_arguments_of_other_types():
    maps = np.ones((2, 4, 4))
    explanation = kxai.Explanation(np.ones((2, 4, 4, 1)), np.zeros((2, 1)), "sum", np.array([16.0, 16.0]))
    for draw in (lambda: figure({"a": maps}, titles=[1, 2]), lambda: pictures(maps[..., np.newaxis], [1, 2])):
        with pytest.raises(ArgumentError, match=r"titles are no texts(.|\n)*Received: 1"):
            draw()
    labels = bars(np.ones((1, 2)), names=["a", 2]).axes[0].get_yticklabels()  # columns of a table may be numbered
    assert [label.get_text() for label in labels] == ["a", "2"]
    with pytest.raises(ArgumentError, match="titles do not fit"):
        pictures(maps[..., np.newaxis], "ab")
    for size in ("a", None, True):
        with pytest.raises(ArgumentError, match="size is out of range"):
            figure({"a": maps}, size=size)
    with pytest.raises(ArgumentError, match="opacity is out of range"):
        overlay(maps[0], maps[0], opacity="a")
    with pytest.raises(UnknownNameError, match="Unknown kind of picture"):
        explanation.plot(kind=["grid"])
