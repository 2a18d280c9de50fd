from __future__ import annotations

import keras
import numpy as np
import pytest

import kxai
from kxai import Explanation, plots
from kxai.errors import ArgumentError, UnknownNameError

RNG = np.random.default_rng(0)


def made(batch=3, audit=True, **changes):
    """A flow with known sums: what arrives at the inputs and what is absorbed is the score."""
    layers = {"first": RNG.normal(size=(batch, 4, 4, 2)), "second": RNG.normal(size=(batch, 5))}
    absorbed = {"second": RNG.normal(size=batch), "between": RNG.normal(size=batch), "first": RNG.normal(size=batch)}
    relevance = {"image": RNG.normal(size=(batch, 6, 6, 1)), "table": RNG.normal(size=(batch, 3))}
    total = sum(part.reshape(batch, -1).sum(axis=1) for part in relevance.values()) + sum(absorbed.values())
    given = {"layers": layers, "absorbed": absorbed if audit else {}, "base": np.full(batch, 0.5), **changes}
    return Explanation(relevance, np.zeros((batch, 1)), "any", total + 0.5, config={"method": "lrp"}, **given)


def names(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def bars(axes):
    """Widths of all bars, by the row on which they lie."""
    found = {}
    for bar in axes.patches:
        found.setdefault(round(bar.get_y() + bar.get_height() / 2), []).append(bar.get_width())
    return found


def test_rows_are_the_sums_from_the_score_to_the_inputs():
    explanation = made()
    left, right = plots.flow(explanation).axes
    assert names(left) == ["score − base", "second", "first", "1 other node", "input image", "input table"]
    widths, lost = bars(left), bars(right)
    inputs = explanation.relevance
    parts = {1: explanation.layers["second"], 2: explanation.layers["first"], 4: inputs["image"], 5: inputs["table"]}
    (diamonds,) = (line for line in left.lines if line.get_marker() == "D")
    nets = dict(zip(diamonds.get_ydata(), diamonds.get_xdata(), strict=True))
    assert set(nets) == {0, 1, 2, 4, 5}
    np.testing.assert_allclose(nets[0], (explanation.score - 0.5).mean())
    for row, part in parts.items():
        flat = part.reshape(3, -1)
        expected = [np.maximum(flat, 0).sum(axis=1).mean(), np.minimum(flat, 0).sum(axis=1).mean()]
        np.testing.assert_allclose(widths[row], expected)
        np.testing.assert_allclose(nets[row], flat.sum(axis=1).mean())
    for row, path in ((1, "second"), (2, "first"), (3, "between")):
        np.testing.assert_allclose(lost[row], [explanation.absorbed[path].mean()])
    # Nothing is left out.
    np.testing.assert_allclose(sum(sum(each) for each in lost.values()) + nets[4] + nets[5], nets[0])


def test_cancellation_is_told():
    layers = {"all": np.array([[2.0, -2.0]]), "much": np.array([[30.5, -29.5]]), "none": np.array([[1.0, 0.0]])}
    left = plots.flow(Explanation(np.ones((1, 1)), np.zeros((1, 1)), "any", np.ones(1), layers=layers)).axes[0]
    told = {round(text.get_position()[1]): text.get_text() for text in left.texts[1:]}
    assert told == {0: "×1", 1: "×1", 2: "×60", 3: "all", 4: "×1"}


def test_spread_of_samples_is_shown_and_that_of_one_is_not():
    explanation = made(11)
    (left, _), (alone, _) = plots.flow(explanation).axes, plots.flow(explanation[4]).axes
    (lines,) = left.collections
    ends = lines.get_segments()[1][:, 0]
    np.testing.assert_allclose(ends, np.percentile(explanation.layers["second"].sum(axis=1), (10, 90)))
    assert not alone.collections
    assert alone.get_xlabel().startswith("score − base")
    assert left.get_xlabel().startswith("mean of 11 samples: score − base")


def test_the_account_adds_up():
    explanation = made(1)
    arrived = sum(part.sum() for part in explanation.relevance.values())
    lost = sum(part.sum() for part in explanation.absorbed.values())
    told = plots.flow(explanation).axes[0].get_xlabel().replace("\n", " ").replace("−", "-")
    assert told == f"score - base {arrived + lost:.4g} = {arrived:.4g} at the inputs + {lost:.4g} absorbed"
    silent = made(1, audit=False)
    figure = plots.flow(silent)
    assert len(figure.axes) == 1
    rest = float(silent.residual[0])
    assert figure.axes[0].get_xlabel().replace("\n", " ").replace("−", "-").endswith(f"{rest:.4g} unaccounted for")


def test_a_model_is_drawn_in_the_order_of_its_graph():
    layers = [keras.layers.Dense(4, "relu", name="hidden"), keras.layers.Dense(2, name="class")]
    model = keras.Sequential([keras.Input((3,), name="table"), *layers])
    explanation = kxai.LRP(model, "epsilon").explain(np.ones((2, 3)), layers="*", audit=True)
    figure = explanation.plot(kind="flow", symlog=True)
    assert names(figure.axes[0]) == ["score − base", "class", "hidden/relu", "hidden", "input"]
    assert figure.axes[0].get_xscale() == "symlog"
    assert "unaccounted" not in figure.axes[0].get_xlabel()


def test_long_names_keep_their_ends():
    layers = {f"backbone/stage_{i}/block_with_a_long_name/convolution_{i}": np.ones((1, 2)) for i in range(2)}
    explanation = Explanation(np.ones((1, 1)), np.zeros((1, 1)), "any", np.ones(1), layers=layers)
    shown = names(plots.flow(explanation).axes[0])
    assert [name[-13:] for name in shown[1:3]] == ["convolution_1", "convolution_0"]
    assert all(name.startswith("…") for name in shown[1:3])


def test_explanations_choose_their_picture():
    def one(shape, **changes):
        relevance = RNG.normal(size=shape)
        return Explanation(relevance, np.zeros((shape[0], 1)), "any", np.ones(shape[0]), **changes)

    assert len(one((2, 5, 5, 3)).plot().axes) == 3
    sequence = one((1, 6, 4))
    assert sequence.plot().axes[0].images
    assert sequence.plot(alphabet="ACGU").axes[0].artists or sequence.plot(alphabet="ACGU").axes[0].patches
    assert sequence.plot(values=np.ones((1, 6, 4))).axes[0].lines
    same = [sequence.plot(kind="logo"), sequence.plot(sequences=["ACGTAC"])]
    assert [axes.get_title(loc="left") for figure in same for axes in figure.axes] == ["score 1   relevance"] * 2
    table = one((1, 6))
    assert table.plot(values=np.ones((1, 6))).axes[0].get_yticklabels()[-1].get_text() == "unexplained"
    assert table.plot(reduce="l2").axes[0].get_xlabel() == "relevance"
    assert table.plot(kind="series", values=np.ones((1, 6))).axes[0].lines
    assert [text.get_text() for text in table.plot(tokens=[["a", "b"]]).axes[0].texts] == ["a", "b"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda e: e.plot(kind="flows"), UnknownNameError, "Unknown kind of picture 'flows'[^$]*did you mean flow"),
        (lambda e: e.plot(kind="flow", input="image"), ArgumentError, "option input does not apply[^$]*symlog"),
        (lambda e: e.plot(kind="flow", titles=[]), ArgumentError, "option titles does not apply"),
        (lambda e: e.plot(kind="series", input="table"), ArgumentError, "needs values[^$]*kind='series', values="),
        (lambda e: e.plot(input="table", titles="abc"), ArgumentError, "titles do not fit[^$]*one text"),
        (lambda e: e.plot(input="table", titles=3), ArgumentError, "titles do not fit[^$]*Received: 3"),
        (lambda e: e.plot(kind="logo", input="image"), ArgumentError, "no relevance of sequences of letters"),
        (lambda e: e.plot(kind="grid", input="table"), ArgumentError, "cannot be drawn as a grid"),
        (
            lambda e: e.plot(kind="series", input="table", reduce="l2", values=[]),
            ArgumentError,
            "reduce does not apply",
        ),
        (
            lambda e: e.plot(input="table", alphabet="ACG"),
            ArgumentError,
            "alphabet does not[^$]*options of 'bars'",
        ),
        (lambda e: e.plot(input="table", images=np.ones((3, 2, 2))), ArgumentError, "option images does not apply"),
        (lambda e: e.plot(), ArgumentError, "several inputs, and none was chosen"),
        (lambda e: plots.flow(np.ones(3)), ArgumentError, "no explanation[^$]*ndarray"),
        (lambda e: plots.flow(made(layers={})), ArgumentError, r'no relevance of layers was kept[^$]*layers="\*"'),
        (lambda e: plots.flow(e[:0]), ArgumentError, "0 samples, 2 layers"),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call(made())


def test_volumes_have_no_picture():
    volume = Explanation(np.ones((1, 2, 2, 2, 1)), np.zeros((1, 1)), "any", np.ones(1))
    with pytest.raises(ArgumentError, match=r"no picture[^$]*\(1, 2, 2, 2, 1\)[^$]*slices"):
        volume.plot()
