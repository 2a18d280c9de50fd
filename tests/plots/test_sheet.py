"""Sheets of samples, and figures on a scale that is given."""

from __future__ import annotations

import numpy as np
import pytest

from kxai.errors import ArgumentError
from kxai.plots import bars, heatmap_rgb, overlay, sheet, strip, to_rgb

HEATMAPS = np.random.default_rng(0).normal(size=(3, 4, 5))
IMAGES = np.random.default_rng(1).random((3, 4, 5, 3))


def pixels(image):
    return image.get_array()


def test_a_sheet_shows_image_heatmap_and_overlay_of_each_sample():
    figure = sheet(HEATMAPS, IMAGES, ["a", "b", "c"], heading="all", bound=2.0, columns=2)
    panels, bar = figure.axes
    rgb = to_rgb(IMAGES)
    assert len(panels.images) == 9
    for sample in range(3):
        image, heatmap, both = panels.images[3 * sample : 3 * sample + 3]
        assert (pixels(image) == rgb[sample]).all()
        assert (pixels(heatmap) == heatmap_rgb(HEATMAPS[sample], bound=2.0)).all()
        assert (pixels(both) == overlay(rgb[sample], HEATMAPS[sample], bound=2.0)).all()
    # Samples lie side by side, their pictures below each other, and the third begins a second line.
    (left, right, bottom, _), (next_left, *_), (*_, third_top) = (
        panels.images[index].get_extent() for index in (0, 3, 6)
    )
    assert right < next_left
    assert [*panels.images[1].get_extent()[::3]] == [left, pytest.approx(bottom - 0.1)]
    assert third_top < panels.images[2].get_extent()[2]
    assert (right - left) / 1.3 == pytest.approx(5 / 4)
    texts = [text.get_text() for text in panels.texts]
    assert sorted(texts) == sorted([*"abc", *["input", "relevance", "overlay"] * 2])
    assert panels.get_title() == "all"
    assert [tick.get_text() for tick in bar.get_xticklabels()] == ["−2", "0", "+2"]
    assert bar.get_xlabel() == ("clipped at the given bound, |R| ≤ 2" if np.abs(HEATMAPS).max() > 2 else "")


def test_a_sheet_without_images_and_bound_states_its_percentile():
    panels, bar = sheet(HEATMAPS, clip=100).axes
    assert len(panels.images) == 3
    assert bar.get_xlabel() == ""
    assert bar.get_xticklabels()[2].get_text() == f"+{np.abs(HEATMAPS).max():.3g}"
    assert sheet(HEATMAPS, clip=90).axes[1].get_xlabel().startswith("clipped at the 90th percentile, |R| ≤ ")
    assert sheet(HEATMAPS, bound=1.0, note="mine").axes[-1].get_xlabel() == "mine"


def test_a_strip_on_a_given_scale():
    figure = strip(np.array([[0.5, -2.0]]), bound=1.0)
    assert (pixels(figure.axes[0].images[0]) == heatmap_rgb(np.array([[0.5, -1.0]]), bound=1.0)).all()
    assert figure.axes[-1].get_xlabel() == "clipped at the given bound, |R| ≤ 1"
    assert strip(np.array([[0.5]]), bound=1.0).axes[-1].get_xlabel() == ""
    assert strip(np.array([[0.5]]), bound=1.0, note="mine").axes[-1].get_xlabel() == "mine"


def test_bars_on_a_given_axis():
    assert bars(np.array([[0.5, -2.0]]), bound=4.0).axes[0].get_xlim() == pytest.approx((-4.32, 4.32))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: sheet(HEATMAPS[0]), "no heatmaps"),
        (lambda: sheet(HEATMAPS, IMAGES[:2]), "images do not fit"),
        (lambda: sheet(HEATMAPS, titles=["a"]), "titles do not fit"),
        (lambda: sheet(HEATMAPS, columns=0), "columns is out of range"),
        (lambda: sheet(HEATMAPS, size=-1), "size is out of range"),
        (lambda: sheet(HEATMAPS, bound=-1.0), "bound is out of range"),
        (lambda: strip(HEATMAPS[0], bound=0), "bound is out of range"),
        (lambda: bars(HEATMAPS[0], bound=np.nan), "bound is out of range"),
    ],
)
def test_wrong_arguments(wrong, text):
    with pytest.raises(ArgumentError, match=text):
        wrong()
