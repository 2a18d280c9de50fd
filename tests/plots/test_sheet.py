"""Sheets of samples, and figures on a scale that is given."""

from __future__ import annotations

import numpy as np
import pytest

from kxai.errors import ArgumentError
from kxai.plots import bars, heatmap_rgb, overlay, sheet, strip, to_rgb

HEATMAPS = np.random.default_rng(0).normal(size=(3, 4, 5))
IMAGES = np.random.default_rng(1).random((3, 4, 5, 3))


def shown(axes):
    return axes.images[0].get_array()


def test_a_sheet_shows_image_heatmap_and_overlay_of_each_sample():
    figure = sheet(HEATMAPS, IMAGES, ["a", "b", "c"], heading="all", bound=2.0, columns=2)
    *panels, bar = figure.axes
    rgb = to_rgb(IMAGES)
    for sample in range(3):
        image, heatmap, both = panels[3 * sample : 3 * sample + 3]
        assert (shown(image) == rgb[sample]).all()
        assert (shown(heatmap) == heatmap_rgb(HEATMAPS[sample], bound=2.0)).all()
        assert (shown(both) == overlay(rgb[sample], HEATMAPS[sample], bound=2.0)).all()
        assert image.get_title() == "abc"[sample]
    assert [axes.get_ylabel() for axes in panels[:6]] == ["input", "relevance", "overlay", "", "", ""]
    # The third sample begins a second line.
    assert panels[6].get_position().y1 < panels[2].get_position().y0
    assert figure.texts[0].get_text() == "all"
    assert [tick.get_text() for tick in bar.get_xticklabels()] == ["−2", "0", "+2"]
    assert bar.get_xlabel() == "scale ±2, given"


def test_a_sheet_without_images_and_bound_states_its_percentile():
    *panels, bar = sheet(HEATMAPS, clip=100).axes
    assert len(panels) == 3
    assert bar.get_xlabel() == f"scale ±{np.abs(HEATMAPS).max():.3g} = maximum of |relevance|"
    assert sheet(HEATMAPS, bound=1.0, note="mine").axes[-1].get_xlabel() == "mine"


def test_a_strip_on_a_given_scale():
    figure = strip(np.array([[0.5, -2.0]]), bound=1.0)
    assert (shown(figure.axes[0]) == heatmap_rgb(np.array([[0.5, -1.0]]), bound=1.0)).all()
    assert figure.axes[-1].get_xlabel() == "scale ±1, given"


def test_bars_on_a_given_axis():
    assert bars(np.array([[0.5, -2.0]]), bound=4.0).axes[0].get_xlim() == pytest.approx((-4.32, 4.32))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: sheet(HEATMAPS[0]), "no heatmaps"),
        (lambda: sheet(HEATMAPS, IMAGES[:2]), "images do not fit"),
        (lambda: sheet(HEATMAPS, titles=["a"]), "titles do not fit"),
        (lambda: sheet(HEATMAPS, columns=0), "columns or size is out of range"),
        (lambda: sheet(HEATMAPS, size=-1), "columns or size is out of range"),
        (lambda: sheet(HEATMAPS, bound=-1.0), "bound is out of range"),
        (lambda: strip(HEATMAPS[0], bound=0), "bound is out of range"),
        (lambda: bars(HEATMAPS[0], bound=np.nan), "bound is out of range"),
    ],
)
def test_wrong_arguments(wrong, text):
    with pytest.raises(ArgumentError, match=text):
        wrong()
