"""Which methods find the words that a text classifier uses? Train two, explain held-out sentences, delete words.

Run it with ``scripts/text_study reviews.tsv.gz``.
"""

from __future__ import annotations

import argparse
import html
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kxai.cli.quiet import library  # noqa: E402

kxai = library()
import keras  # noqa: E402

from scripts import text_models  # noqa: E402
from scripts.deletion import Curves, curves, interval, mean_curve  # noqa: E402
from scripts.text_models import PADDING, Text  # noqa: E402

RANDOM = "random order"
RANDOM_ORDERS = 5
PLAIN = "gradient_x_input"
METHODS = {
    "transformer": ("lrp.attn", "lrp.cp", "gradient_x_input", "attention_relevance", "attention_rollout"),
    "bilstm": ("lrp.epsilon", "gradient_x_input"),
}
CLASSES = ("negative", "positive")
SHOWN = 12


@dataclass(frozen=True)
class Result:
    """What one method found on one network.

    Attributes:
        relevance: (sentences, length).
        areas: (sentences,), between the curves of least and most relevant words first.
        most, least: mean curves.
    """

    relevance: np.ndarray
    areas: np.ndarray
    most: np.ndarray
    least: np.ndarray


def main() -> None:
    """Train, explain, delete, report."""
    arguments = parse()
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 110
    sentences, scores = text_models.read(arguments.file)
    vocabulary, sets = text_models.split(sentences, scores, arguments.seed)
    sizes = ", ".join(f"{len(text)} {name}" for name, text in sets.items())
    console.print(f"sentences: {sizes}; vocabulary: {len(vocabulary)}")
    chosen = long_enough(sets["test"], arguments.sentences)
    sections = []
    for name, methods in METHODS.items():
        keras.utils.set_random_seed(arguments.seed)
        model = {"transformer": text_models.transformer, "bilstm": text_models.bilstm}[name](len(vocabulary))
        with console.status(f"training the {name}"):
            accuracy = text_models.train(model, sets, arguments.epochs, arguments.seed)
        majority = max(np.mean(sets["test"].labels), 1 - np.mean(sets["test"].labels))
        title = f"{name}: accuracy {accuracy:.1%} on {len(sets['test'])} test sentences (majority {majority:.1%})"
        with console.status(f"deleting words from {len(chosen)} sentences"):
            outputs, results, refused = study(model, chosen, methods, arguments.seed)
        rows = figures(results, arguments.seed)
        console.print(table(title, rows, refused, len(chosen)))
        print(kxai.plots.text_terminal(*coloured(chosen, outputs, results, 3), width=max(console.width, 40)))
        sections.append(section(title, rows, refused, chosen, outputs, results))
        draw(results, title, arguments.output / f"{name}.png")
    path = arguments.output / "text_study.html"
    path.write_text(page(sections, arguments, sizes), encoding="utf-8")
    console.print(f"-- {path}", soft_wrap=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="sentences: lines of score, tab, text under a line of names; or .gz")
    parser.add_argument("--sentences", type=int, default=500, help="test sentences to explain; default %(default)s")
    parser.add_argument("--epochs", type=int, default=8, help="of the training; default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is random; default %(default)s")
    parser.add_argument("--output", type=Path, default=ROOT / "text_study_output", help="folder for page and pictures")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.file = arguments.folder / arguments.file
    if not arguments.file.is_file():
        parser.error(f"there is no file {arguments.file}")
    for name in ("sentences", "epochs"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name}: expected at least 1")
    arguments.output = arguments.folder / arguments.output
    arguments.output.mkdir(parents=True, exist_ok=True)
    return arguments


def long_enough(text: Text, count: int) -> Text:
    """The first sentences of at least four words: with fewer, an order says little."""
    keep = [i for i, words in enumerate(text.words) if len(words) > 4][:count]
    return Text([text.words[i] for i in keep], text.ids[keep], text.labels[keep])


def study(
    model: Any, text: Text, methods: tuple[str, ...], seed: int
) -> tuple[np.ndarray, dict[str, Result], dict[str, str]]:
    """Outputs, results by method, and why a method refused."""

    def score(ids: np.ndarray) -> np.ndarray:
        return model.predict(ids, batch_size=1024, verbose=0)

    outputs = score(text.ids)
    # The predicted class against the other, fixed before anything is deleted. (One logit alone has no meaning: adding
    # a number to both changes no prediction.)
    target = np.where(np.eye(2)[outputs.argmax(axis=1)] == 1, 1.0, -1.0).astype("float32")
    counts = [len(words) - 1 for words in text.words]

    def watched(relevance: np.ndarray) -> list[Curves]:
        return curves(score, text.ids, counts, target, relevance, PADDING, seed)

    results, refused = {}, {}
    for method in methods:
        try:
            relevance = kxai.explain(model, text.ids, method, target=target, batch_size=64).heatmap()
        except kxai.KxaiError as error:
            refused[method] = str(error).splitlines()[0]
            continue
        results[method] = result(relevance, [watched(relevance)])
    random = np.random.default_rng(seed)
    orders = [random.normal(size=text.ids.shape) for _ in range(RANDOM_ORDERS)]
    results[RANDOM] = result(orders[0], [watched(order) for order in orders])
    return outputs, results, refused


def result(relevance: np.ndarray, repeats: list[list[Curves]]) -> Result:
    """A method's result; areas are means over repeats."""
    areas = np.mean([[curve.area for curve in found] for found in repeats], axis=0)
    most = np.mean([mean_curve([curve.most for curve in found]) for found in repeats], axis=0)
    least = np.mean([mean_curve([curve.least for curve in found]) for found in repeats], axis=0)
    return Result(relevance, areas, most, least)


def figures(results: dict[str, Result], seed: int) -> list[tuple[str, ...]]:
    """A row per method, the largest area first: area, and its paired differences to two others, with intervals."""
    rows = []
    for method, found in sorted(results.items(), key=lambda item: -item[1].areas.mean()):
        row = [method, "{:.2f} [{:.2f}, {:.2f}]".format(*interval(found.areas, seed))]
        for other in (RANDOM, PLAIN):
            compared = other in results and other != method
            values = interval(found.areas - results[other].areas, seed) if compared else ()
            row.append("{:+.2f} [{:+.2f}, {:+.2f}]".format(*values) if values else "-")
        rows.append(tuple(row))
    return rows


HEADS = ("method", "area between the curves", f"minus {RANDOM}", f"minus {PLAIN}")


def note(count: int) -> str:
    return (
        f"{count} held-out sentences, words deleted one by one; area = mean log-odds of the predicted class "
        "with the least relevant words deleted first, minus those with the most relevant first; in brackets 95 % "
        "bootstrap intervals over sentences, of differences sentence by sentence"
    )


def table(title: str, rows: list[tuple[str, ...]], refused: dict[str, str], count: int) -> Table:
    shown = Table(*HEADS, title=title, caption=note(count))
    for row in rows:
        shown.add_row(*row)
    for method, why in refused.items():
        shown.add_row(method, why)
    return shown


def coloured(text: Text, outputs: np.ndarray, results: dict[str, Result], count: int) -> tuple[Any, Any, Any]:
    """Relevance by method, words and titles of the first sentences; the start token, which is no word, is left out."""
    relevance = {method: found.relevance[:count, 1:] for method, found in results.items() if method != RANDOM}
    titles = []
    for logits, label in zip(outputs[:count], text.labels[:count], strict=True):
        probability = np.exp(logits.max()) / np.exp(logits).sum()
        titles.append(f"predicted {CLASSES[logits.argmax()]} ({probability:.0%}), is {CLASSES[label]}")
    return relevance, [words[1:] for words in text.words[:count]], titles


def section(
    title: str, rows: list[tuple[str, ...]], refused: dict[str, str], text: Text, outputs: np.ndarray,
    results: dict[str, Result],
) -> str:  # fmt: skip
    lines = [HEADS, *rows, *((method, why) for method, why in refused.items())]
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    sentences = kxai.plots.text_html(*coloured(text, outputs, results, SHOWN))
    return f"<h2>{html.escape(title)}</h2>\n<table>{cells}</table>\n<p>{note(len(text))}.</p>\n{sentences}"


def page(sections: list[str], arguments: argparse.Namespace, sizes: str) -> str:
    head = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Words that matter</title>'
        '<meta name="color-scheme" content="light dark"><style>body { font: 15px/1.5 system-ui, sans-serif; '
        "max-width: 75em; margin: 2em auto; padding: 0 1em; } td { padding: 0 1.5em 0 0; }</style></head><body>"
    )
    made = f"Sentences: {sizes}. Seed {arguments.seed}, {arguments.epochs} epochs."
    said = "Red words speak for the predicted class, blue ones against it; attention methods know no sign."
    return "\n".join([head, "<h1>Words that matter</h1>", f"<p>{made} {said}</p>", *sections, "</body></html>\n"])


def draw(results: dict[str, Result], title: str, path: Path) -> None:
    """Mean curves of all methods: most relevant first drawn, least relevant first dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, (method, found) in enumerate(results.items()):
        shares = np.linspace(0, 1, len(found.most))
        color = "#888888" if method == RANDOM else f"C{number}"
        axes.plot(shares, found.most, color=color, label=method)
        axes.plot(shares, found.least, color=color, linestyle="--")
    axes.set(xlabel="share of words deleted", ylabel="log-odds of the predicted class")
    axes.set_title(title, fontsize=10)
    title = "most relevant first —\nleast relevant first - -"
    figure.legend(loc="outside right upper", title=title, fontsize=8, title_fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    main()
