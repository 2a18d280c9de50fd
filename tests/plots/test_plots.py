from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from kxai import plots
from kxai.errors import ArgumentError, InputError

RNG = np.random.default_rng(0)


def linear(rgb):
    rgb = np.asarray(rgb, dtype=np.float64) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def luminance(rgb):
    return linear(rgb) @ [0.2126, 0.7152, 0.0722]


def test_colours_mean_what_they_say():
    values = np.linspace(0.05, 1, 20)
    red, blue = plots.diverging(values).astype(int), plots.diverging(-values).astype(int)
    assert (plots.diverging(np.zeros(1)) >= 248).all()
    assert (red[:, 0] > red[:, 2]).all()
    assert (blue[:, 2] > blue[:, 0]).all()
    # Farther from zero is darker, and no sign is much darker than the other.
    assert (np.diff(luminance(red)) < 0).all()
    assert (np.diff(luminance(blue)) < 0).all()
    assert np.abs(np.cbrt(luminance(red)) - np.cbrt(luminance(blue))).max() < 0.1


def test_signs_stay_apart_for_the_colour_blind():
    # Deuteranopia and protanopia in linear RGB (Vienot, Brettel and Mollon 1999).
    protan = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    deutan = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    for seen in (protan, deutan):
        for value in (0.3, 0.6, 0.9):
            red, blue = (linear(plots.diverging(np.array([sign * value]))) @ seen.T for sign in (1, -1))
            assert blue[0, 2] - blue[0, 0] > 0.1 + red[0, 2] - red[0, 0]


def test_out_of_range_is_clipped():
    assert (plots.diverging(np.array([5.0])) == plots.diverging(np.array([1.0]))).all()


def test_heatmap_is_centred_at_zero_whatever_the_range():
    rgb = plots.heatmap_rgb(np.array([[0.0, 10.0], [-1.0, 0.0]]), clip=100)
    assert (rgb[0, 0] == plots.diverging(np.array(0.0))).all()
    assert (rgb[0, 1] == plots.diverging(np.array(1.0))).all()
    assert (rgb[1, 0] == plots.diverging(np.array(-0.1))).all()
    assert rgb.dtype == np.uint8


def test_clip_and_bound():
    values = np.ones((10, 100))
    values[0, 0] = 1000.0
    assert plots.limit(values, 99.5) == 1.0
    assert plots.limit(values, 100) == 1000.0
    sparse = np.zeros((10, 100))
    sparse[0, 0] = -3.0
    assert plots.limit(sparse) == 3.0
    assert plots.limit(np.zeros(3)) == 0.0
    assert (plots.heatmap_rgb(np.zeros((2, 2))) >= 248).all()
    assert (plots.heatmap_rgb(np.ones((2, 2)), bound=2.0)[0, 0] == plots.diverging(np.array(0.5))).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plots.heatmap_rgb(np.ones((2, 2)), clip=0), ArgumentError, r"clip is out of range[^$]*\(0, 100\]"),
        (lambda: plots.heatmap_rgb(np.ones((2, 2)), clip=True), ArgumentError, "clip is out of range"),
        (lambda: plots.heatmap_rgb(np.ones((2, 2)), bound=-1.0), ArgumentError, "bound is out of range"),
        (lambda: plots.heatmap_rgb(np.ones(4)), ArgumentError, "This is no heatmap"),
        (lambda: plots.heatmap_rgb(np.full((2, 2), np.nan)), InputError, "NaN or infinity"),
        (lambda: plots.heatmap_rgb(np.ones((0, 2))), InputError, "no values"),
        (lambda: plots.overlay(np.zeros((4, 4)), np.ones((2, 2))), ArgumentError, "differ in size"),
        (lambda: plots.overlay(np.zeros((2, 2)), np.ones((2, 2)), opacity=1.5), ArgumentError, "opacity is out"),
        (lambda: plots.to_rgb(np.array([[-1.0, 1.0]])), ArgumentError, "unknown range[^$]*preprocessing"),
        (lambda: plots.to_rgb(np.array([[np.nan, 1.0]])), ArgumentError, "unknown range"),
        (lambda: plots.to_rgb(np.zeros((2, 2, 4))), ArgumentError, "This is no image"),
        (lambda: plots.figure({}), ArgumentError, "cannot be drawn as a grid"),
        (lambda: plots.figure({"a": np.ones((1, 2, 2)), "b": np.ones((1, 2, 3))}), ArgumentError, "as a grid"),
        (lambda: plots.figure({"a": np.ones((1, 2, 2))}, scale="row"), ArgumentError, "one of figure, method, panel"),
        (lambda: plots.figure({"a": np.ones((1, 2, 2))}, opacity=0.5), ArgumentError, "An overlay needs images"),
        (lambda: plots.figure({"a": np.ones((1, 2, 2))}, titles=["x", "y"]), ArgumentError, "titles do not fit"),
        (lambda: plots.figure({"a": np.ones((1, 2, 2))}, images=np.ones((2, 2))), ArgumentError, "images do not fit"),
        (lambda: plots.strip(np.ones((1, 2)), tokens=[["a"] * 3]), ArgumentError, "tokens do not fit"),
        (lambda: plots.strip(np.ones((1, 2)), tokens=["ab"]), ArgumentError, "wrong structure"),
        (lambda: plots.strip(np.ones(2)), ArgumentError, "no batch of sequences"),
        (lambda: plots.bars(np.ones((1, 2)), names=["a"]), ArgumentError, "names do not fit"),
        (lambda: plots.bars(np.ones((1, 2)), top=0), ArgumentError, "top is out of range"),
        (lambda: plots.draw(np.ones((1, 2, 2, 2))), ArgumentError, "rank cannot be drawn"),
        (lambda: plots.draw(np.ones((1, 2)), clip=99), ArgumentError, "The option clip does not apply"),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_overlay_leaves_gray_where_nothing_is_and_colours_the_rest():
    image = RNG.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    heatmap = np.zeros((6, 6))
    heatmap[0, 0], heatmap[5, 5] = 2.0, -2.0
    drawn = plots.overlay(image, heatmap, clip=100).astype(int)
    assert np.ptp(drawn[1:5, 1:5], axis=-1).max() == 0
    np.testing.assert_allclose(drawn[2, 2, 0], image[2, 2] @ [0.2126, 0.7152, 0.0722], atol=0.51)
    assert drawn[0, 0, 0] > drawn[0, 0, 2]
    assert drawn[5, 5, 2] > drawn[5, 5, 0]
    faint = plots.overlay(image, heatmap, opacity=0.0, clip=100).astype(int)
    assert np.ptp(faint, axis=-1).max() == 0


def test_images_of_all_usual_ranges_agree():
    pixels = RNG.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    assert (plots.to_rgb(pixels / 255.0) == pixels).all()
    assert (plots.to_rgb(pixels.astype(np.float32)) == pixels).all()
    assert plots.to_rgb(pixels[..., :1]).shape == pixels.shape


def texts(figure):
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(lambda a: type(a).__name__ == "Text") if text.get_text()]


def test_figure_states_its_scale():
    maps = {"lrp": np.full((2, 4, 4), 3.0), "gradient": np.full((2, 4, 4), -50.0)}
    by_method = texts(plots.figure(maps, images=np.zeros((2, 4, 4)), titles=["cat", "dog"]))
    assert {"lrp\n±3", "gradient\n±50", "cat", "dog", "input", "+bound"} <= set(by_method)
    assert "each method by its own ±bound = 99.5th percentile of |relevance|" in by_method
    shared = texts(plots.figure(maps, scale="figure", clip=100))
    assert {"scale ±50 = maximum of |relevance|", "+50", "lrp"} <= set(shared)
    alone = texts(plots.figure({"lrp": maps["lrp"]}))
    assert "scale ±3 = 99.5th percentile of |relevance|" in alone
    panels = texts(plots.figure({"lrp": np.stack([np.ones((4, 4)), 2 * np.ones((4, 4))])}, scale="panel"))
    assert {"±1", "±2"} <= set(panels)


def test_figure_draws_the_colours_of_its_scale():
    maps = {"weak": np.full((1, 4, 4), 1.0), "strong": np.full((1, 4, 4), 4.0)}
    shared, own = (plots.figure(maps, scale=scale) for scale in ("figure", "method"))
    weak = [figure.axes[0].images[0].get_array()[0, 0].tolist() for figure in (shared, own)]
    assert weak[0] == plots.diverging(np.array(0.25)).tolist()
    assert weak[1] == plots.diverging(np.array(1.0)).tolist()


def test_figure_with_overlays():
    maps, images = {"a": np.eye(4)[np.newaxis]}, np.full((1, 4, 4), 0.5)
    drawn = plots.figure(maps, images=images, opacity=0.5, clip=100).axes[1].images[0].get_array()
    np.testing.assert_array_equal(drawn, plots.overlay(images[0], maps["a"][0], 0.5, clip=100))


def test_words_wrap_and_the_rest_is_stated():
    words = ["word"] * 40
    figure = plots.strip(np.ones((1, 50)), tokens=[words])
    places = [text.get_position() for text in figure.axes[0].texts]
    assert len(places) == 40
    assert len({y for _, y in places}) > 1
    assert "relevance 10 after the last word" in texts(figure)


def test_bars_add_up():
    values = RNG.normal(size=(1, 30))
    figure = plots.bars(values, top=4)
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert len(widths) == 5
    np.testing.assert_allclose(sum(widths), values.sum())
    assert np.abs(widths[0]) == np.abs(values).max()


def test_pyplot_does_not_know_the_figures():
    before = plt.get_fignums()
    plots.figure({"a": np.ones((1, 3, 3))}).canvas.draw()
    plots.bars(np.ones((1, 3))).canvas.draw()
    plots.strip(np.ones((1, 3))).canvas.draw()
    assert plt.get_fignums() == before
