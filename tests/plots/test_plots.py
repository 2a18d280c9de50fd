from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import matplotlib.pyplot as plt
import numpy as np
import pytest

from kxai import plots
from kxai.errors import ArgumentError, InputError
from kxai.explanation import Explanation
from tests.plots.vision import VISIONS, lab

RNG = np.random.default_rng(0)


def test_colours_mean_what_they_say():
    values = np.linspace(0.05, 1, 20)
    red, blue = plots.diverging(values).astype(int), plots.diverging(-values).astype(int)
    assert (plots.diverging(np.zeros(1)) >= 248).all()
    assert (red[:, 0] > red[:, 2]).all()
    assert (blue[:, 2] > blue[:, 0]).all()
    # No sign is much darker than the other.
    assert np.abs(lab(red)[:, 0] - lab(blue)[:, 0]).max() < 10


@pytest.mark.parametrize("vision", VISIONS)
def test_signs_stay_apart_for_the_colour_blind(vision):
    values = np.array([0.1, 0.25, 0.5, 0.75, 1.0])
    red, blue = (lab(plots.diverging(sign * values), vision) for sign in (1, -1))
    # 2.3 is a just noticeable difference in CIELAB; 10 is one at a glance, 30 between different colours.
    assert (np.linalg.norm(red - blue, axis=1) > [10, 30, 50, 50, 50]).all()
    # Magnitude is told by lightness alone, too: monotone from the middle to both ends. Colours of eight bits that are
    # a 256th of the scale apart may be equally light up to rounding, hence the 0.05.
    for sign in (1, -1):
        light = lab(plots.diverging(sign * np.linspace(0, 1, 257)), vision)[:, 0]
        assert np.diff(light).max() < 0.05
        assert (np.diff(light[::16]) < -1).all()


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
        (lambda: plots.to_rgb(np.array([[np.nan, 1.0]])), ArgumentError, "has no range[^$]*NaN or infinity"),
        (lambda: plots.to_rgb(np.array([["a"]])), ArgumentError, "has no range[^$]*Received: <U1"),
        (lambda: plots.to_rgb(np.zeros((2, 2, 4))), ArgumentError, r"This is no image[^$]*images\[..., \[3, 2, 1\]\]"),
        (
            lambda: plots.to_rgb(np.zeros((2, 3, 5, 5))),
            ArgumentError,
            r"channels first[^$]*moveaxis\(images, -3, -1",
        ),
        (lambda: plots.figure(np.full((1, 2, 2), np.inf)), InputError, "Relevance cannot be drawn[^$]*NaN or infinity"),
        (lambda: plots.figure({"a": np.full((1, 2, 2), "x")}), InputError, "real numbers[^$]*Received: <U1"),
        (lambda: plots.figure({}), ArgumentError, "cannot be drawn as a grid"),
        (lambda: plots.figure({"a": np.ones((1, 2, 2)), "b": np.ones((1, 2, 3))}), ArgumentError, "as a grid"),
        (lambda: plots.figure({"a": np.ones((1, 2, 2))}, scale="row"), ArgumentError, "'figure', 'method', 'panel'"),
        (lambda: plots.figure({"a": np.ones((1, 2, 2))}, opacity=0.5), ArgumentError, "An overlay needs images"),
        (lambda: plots.figure({"a": np.ones((1, 2, 2))}, titles=["x", "y"]), ArgumentError, "titles do not fit"),
        (lambda: plots.figure({"a": np.ones((1, 2, 2))}, images=np.ones((2, 2))), ArgumentError, "images do not fit"),
        (lambda: plots.strip(np.ones((1, 2)), tokens=[["a"] * 3]), ArgumentError, "tokens do not fit"),
        (lambda: plots.strip(np.ones((1, 2)), tokens=["ab"]), ArgumentError, "(?s)wrong structure.*'ab'"),
        (lambda: plots.strip(np.ones((1, 2)), tokens=3), ArgumentError, "(?s)wrong structure.*3"),
        (lambda: plots.strip(np.ones((1, 2)), tokens=[3]), ArgumentError, "(?s)wrong structure.*3"),
        (lambda: plots.strip({"a": np.ones((1, 2))}), ArgumentError, "(?s)more than one method.*a dict of a.*figure"),
        (lambda: plots.bars({"a": np.ones((1, 2))}), ArgumentError, "(?s)more than one method.*a dict of a"),
        (lambda: plots.figure({"a": {"b": np.ones((1, 2, 2))}}), ArgumentError, "more than one method"),
        (lambda: plots.figure([[[1.0], [1.0, 2.0]]]), ArgumentError, "rows of different lengths"),
        (lambda: plots.figure(np.ones((2, 2))), ArgumentError, r"(?s)as a grid.*Received: \(2, 2\)"),
        (lambda: plots.strip(np.ones(2)), ArgumentError, "no batch of sequences"),
        (lambda: plots.bars(np.ones((1, 2)), names=["a"]), ArgumentError, "names do not fit"),
        (lambda: plots.bars(np.ones((1, 2)), top=0), ArgumentError, "top is out of range"),
        (
            lambda: plots.strip(np.ones((1, 2)), titles="a"),
            ArgumentError,
            "titles do not fit[^$]*one text",
        ),
        (lambda: plots.bars(np.ones((1, 2)), values=np.ones((1, 3))), ArgumentError, "values do not fit"),
        (lambda: plots.bars(np.ones((1, 2)), score=np.ones(2)), ArgumentError, r"score does not fit[^$]*\(1,\)"),
        (lambda: plots.bars(np.ones((1, 2)), base=np.ones(1)), ArgumentError, "A base needs a score"),
        (lambda: plots.bars(np.ones((1, 2)), score=np.array([np.nan])), InputError, "score cannot be drawn"),
        (lambda: plots.bars(np.full((1, 2), np.nan)), InputError, "Relevance cannot be drawn"),
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
    pixels.flat[:2] = 0, 255
    assert (plots.to_rgb(pixels / 255.0) == pixels).all()
    assert (plots.to_rgb(pixels.astype(np.float32)) == pixels).all()
    for preprocessed in (pixels / 127.5 - 1, pixels * 16.0, pixels.astype(np.int16) - 128, pixels / 50 - 2.1):
        assert (plots.to_rgb(preprocessed) == pixels).all()
    assert plots.to_rgb(pixels[..., :1]).shape == pixels.shape
    assert (plots.to_rgb(np.array([[True, False]]))[0, :, 0] == [255, 0]).all()
    assert (plots.to_rgb(np.full((2, 2), -3.0)) == 0).all()


def texts(figure):
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(lambda a: type(a).__name__ == "Text") if text.get_text()]


def test_figure_states_its_scale():
    maps = {"lrp": np.full((2, 4, 4), 3.0), "gradient": np.full((2, 4, 4), -50.0)}
    by_method = texts(plots.figure(maps, images=np.zeros((2, 4, 4)), titles=["cat", "dog"]))
    assert {"lrp\n±3", "gradient\n±50", "cat", "dog", "input", "+bound"} <= set(by_method)
    assert "each method by its own ±bound" in by_method
    shared = texts(plots.figure(maps, scale="figure", clip=100))
    assert {"−50", "+50", "lrp"} <= set(shared)
    assert {"−3", "+3", "lrp"} <= set(texts(plots.figure({"lrp": maps["lrp"]})))
    panels = texts(plots.figure({"lrp": np.stack([np.ones((4, 4)), 2 * np.ones((4, 4))])}, scale="panel"))
    assert {"±1", "±2", "each panel by its own ±bound"} <= set(panels)
    preprocessed = texts(plots.figure(maps, images=np.linspace(-2.1, 2.6, 32).reshape(2, 4, 4)))
    assert "input\n−2.1 to 2.6" in preprocessed


def test_figures_state_what_they_clip_and_only_that():
    values = np.arange(1.0, 401.0).reshape(1, 20, 20)
    bound = np.percentile(values, 95)
    clipped = f"clipped at the 95th percentile, |R| ≤ {bound:.3g}"
    drawn = plots.figure({"lrp": values}, clip=95)
    assert {clipped, f"+{bound:.3g}"} <= set(texts(drawn))
    shown = drawn.axes[0].images[0].get_array()
    darkest = (shown == plots.diverging(np.array(1.0))).all(axis=-1)
    assert darkest[values[0] >= bound].all()
    assert (~darkest[values[0] < 0.99 * bound]).all()
    assert "each method by its own ±bound, clipped at the 95th percentile of |R|" in " ".join(
        texts(plots.figure({"a": values, "b": 2 * values}, clip=95))
    ).replace("\n", " ")
    flat = values.reshape(1, 400)
    for figure in (plots.strip(flat, clip=95), plots.series(flat, flat, clip=95)):
        assert clipped in texts(figure)
    unclipped = [
        plots.figure({"lrp": values}, clip=100),
        plots.strip(flat, clip=100),
        plots.series(flat, flat, clip=100),
    ]
    # A nearly empty map is drawn up to its maximum: nothing is clipped, though 99.5 is asked for.
    unclipped.append(plots.strip(np.eye(1, 1000)))
    for figure in unclipped:
        assert not any("clipped" in text for text in texts(figure))


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


def test_words_stay_on_their_ground():
    words = ["a" * 30, "word", "W" * 300, "-" * 60]
    drawn = plots.strip(RNG.normal(size=(1, 4)), [words])
    drawn.canvas.draw()
    axes = drawn.axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert texts[:2] + texts[3:] == words[:2] + words[3:]
    assert re.fullmatch("W{70,}…", texts[2])  # the rest of the line, and no more
    renderer = drawn.canvas.get_renderer()
    for text, ground in zip(axes.texts, axes.patches, strict=True):
        inner, outer = text.get_window_extent(renderer), ground.get_window_extent(renderer)
        assert outer.x0 <= inner.x0 < inner.x1 <= outer.x1
        assert inner.x1 - inner.x0 > outer.x1 - outer.x0 - 20  # and the ground is no larger than the word


def test_bars_add_up():
    values = RNG.normal(size=(1, 30))
    figure = plots.bars(values, top=4)
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert len(widths) == 5
    np.testing.assert_allclose(sum(widths), values.sum())
    assert np.abs(widths[0]) == np.abs(values).max()


def test_bars_lead_from_base_to_score():
    values, score, base = RNG.normal(size=(3, 9)), RNG.normal(size=3), RNG.normal(size=3)
    figure = plots.bars(values, values=values * 10, top=2, score=score, base=base)
    for row, axes in enumerate(figure.axes):
        np.testing.assert_allclose(sum(bar.get_width() for bar in axes.patches), score[row] - base[row])
        labels = [label.get_text() for label in axes.get_yticklabels()]
        first = np.argmax(np.abs(values[row]))
        assert labels[0] == f"feature {first} = {10 * values[row, first]:.4g}".replace("-", "−")
        assert labels[2:] == ["7 others", "unexplained"]
        assert axes.get_xlabel() == f"base {base[row]:.4g} → score {score[row]:.4g}".replace("-", "−")


def test_values_of_features_may_be_texts():
    names = ["class", "a name that is far too long to be written in full"]
    axes = plots.bars(np.array([[1.0, 2.0]]), names, np.array([["third", "7.25"]])).axes[0]
    long, short = (label.get_text() for label in axes.get_yticklabels())
    assert short == "class = third"
    assert long.startswith("a name")
    assert long.endswith("… = 7.25")


def flowing(rows, size):
    """Relevance of layers that cancels, of very different sizes, and relevance that is absorbed."""
    layers = {f"a long name of a layer number {n}": size * RNG.normal(size=(rows, 9)) * 10.0**n for n in range(5)}
    absorbed = {name: size * (1 + RNG.random(rows)) / 7**n for n, name in enumerate(layers)}
    nothing = np.zeros((rows, 1))
    score = size * np.ones(rows)
    return Explanation(layers[min(layers)], nothing, "sum", score, layers=layers, absorbed=absorbed)


@pytest.mark.parametrize("rows", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_nothing_is_cut_off_and_nothing_overlaps(rows):
    name = "lrp.sequential_preset_b_flat_until_idx of a model"
    long = "a golden retriever, or one of the many other breeds of dog that there are, $5, score −12.34"
    maps = {name: RNG.normal(size=(rows, 6, 6)), name + "s": RNG.normal(size=(rows, 6, 6)), "c": np.ones((rows, 6, 6))}
    flat, titles = RNG.normal(size=(rows, 8)), [long] * rows
    figures = [
        plots.figure(maps, images=RNG.normal(size=(rows, 6, 6)), titles=titles),
        plots.figure({name: maps[name]}, titles=titles, scale="panel"),
        plots.strip(flat, titles=titles),
        plots.strip(flat, tokens=[["word"] * 7] * rows, titles=titles),
        plots.series({name: flat, "b": flat}, flat, titles=titles, names=[long]),
        plots.series(flat[..., None], flat[..., None] * [1e-7, 1e9, 1] + [0, 0, 101325], names=["pressure"] * 3),
        plots.logo({name: flat}, sequences=["ACGTACG"] * rows, titles=titles),
        plots.logo(flat * 1e-200, sequences=["ACGTACG"] * rows),
        plots.bars(flat, [long] * 8, flat * 1000, titles, score=flat.sum(axis=1)),
        plots.pictures(RNG.random((rows, 4, 4, 1)), titles),
        *(plots.flow(flowing(rows, -1e-7), symlog) for symlog in (False, True)),
        plots.flow(flowing(rows, 1e5)),
    ]
    for figure in figures:
        figure.canvas.draw()
        renderer, (width, height) = figure.canvas.get_renderer(), figure.canvas.get_width_height()
        axes = [axis for panel in figure.axes for axis in (panel.xaxis, panel.yaxis)]
        ticks = [(tick, *sorted(axis.get_view_interval())) for axis in axes for tick in axis.get_major_ticks()]
        # Ticks beyond the view are not drawn.
        hidden = {tick.label1 for tick, low, high in ticks if not low <= tick.get_loc() <= high}
        boxes = []
        for text in figure.findobj(lambda artist: type(artist).__name__ == "Text"):
            if text.get_text() and text.get_visible() and text not in hidden:
                box = text.get_window_extent(renderer)
                assert box.x0 >= 0, text
                assert box.y0 >= 0, text
                assert box.x1 <= width, text
                assert box.y1 <= height, text
                boxes.append((box, text.get_text()))
        panels = [axes.get_window_extent(renderer) for axes in figure.axes]
        for number, (box, text) in enumerate(boxes):
            for other, clash in boxes[:number]:
                # Boxes of texts have a rim of a few pixels.
                assert not box.padded(-2).overlaps(other.padded(-2)), (text, clash)
        for number, panel in enumerate(panels):
            assert not any(panel.padded(-1).overlaps(other) for other in panels[:number])


def test_pyplot_does_not_know_the_figures():
    before, settings = plt.get_fignums(), dict(plt.rcParams)
    steps = np.ones((1, 3))
    plots.figure({"a": np.ones((1, 3, 3))}).canvas.draw()
    plots.pictures(np.ones((1, 3, 3, 1)), ["a"]).canvas.draw()
    for figure in (plots.bars(steps), plots.strip(steps), plots.series(steps, steps)):
        figure.canvas.draw()
    plots.logo(steps, sequences=["ACG"]).canvas.draw()
    assert plt.get_fignums() == before
    assert dict(plt.rcParams) == settings


def test_threads_draw_the_same():
    values, images = RNG.normal(size=(1, 9, 4)), RNG.random((1, 9, 4, 3))

    def work(_):
        found = []
        for figure in (
            plots.logo(values),
            plots.series(values[..., 0], values[..., 0]),
            plots.figure(values, images=images),
        ):
            figure.canvas.draw()
            found.append(np.asarray(figure.canvas.buffer_rgba()).copy())
        return found

    alone = work(0)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(work, range(4)):
            assert all(np.array_equal(one, other) for one, other in zip(found, alone, strict=True))


def test_explanations_are_read_as_their_arrays():
    relevance = RNG.normal(size=(2, 6, 6, 3))
    made = Explanation(relevance, np.zeros((2, 1)), "any", np.ones(2), config={"method": "lrp"})
    for drawn in (plots.figure(made), plots.figure({"lrp": made})):
        assert drawn.axes[0].get_title() == "lrp"
        shown = plots.figure({"lrp": relevance.sum(axis=-1)}).axes[1].images[0].get_array()
        np.testing.assert_array_equal(drawn.axes[1].images[0].get_array(), shown)
    table = Explanation(relevance[:, 0, :, 0], np.zeros((2, 1)), "any", np.ones(2))
    assert plots.bars(table).axes[0].get_xlabel() == "base 0 → score 1"


def test_long_sequences_keep_their_peaks():
    values = np.zeros((1, 30_000))
    values[0, [700, 12_345, 29_000]] = 1, -1, 1
    for figure in (plots.strip(values), plots.series(values, np.zeros((1, 30_000)))):
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[: int(0.35 * figure.canvas.get_width_height()[1])]
        red, blue = (plots.diverging(np.array(sign)) for sign in (1.0, -1.0))
        found = [
            np.flatnonzero((np.abs(pixels[..., :3] - ink.astype(int)) < 3).all(axis=-1).any(axis=0))
            for ink in (red, blue)
        ]
        assert (np.diff(found[0]) > 1).sum() == 1
        assert (np.diff(found[1]) > 1).sum() == 0
        assert len(found[1]) > 0
