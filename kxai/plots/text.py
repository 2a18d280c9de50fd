"""Words in the colours of their relevance: HTML for a page or a notebook, and text for a terminal."""

from __future__ import annotations

import html
import os
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kxai.arguments import check_integer
from kxai.errors import ArgumentError
from kxai.plots.canvas import INK
from kxai.plots.color import diverging
from kxai.plots.given import Relevance, check_texts, check_tokens, heatmaps
from kxai.plots.pieces import pieces, visible
from kxai.plots.scale import bounds, one_bound, scaled, stated

_LIGHT = (-0.72, 0.69)  # Shares with black letters; others have white ones: a contrast of 4.5 on every colour.
_RESET = "\x1b[0m"

# White ground, dark ink and the font are stated, never inherited: the colours mean the same on a page in dark mode, and
# tables inherit no font where a page names no document type.
_STYLE = f"""<style>
.kxai-text {{ background: #fff; color: {INK}; font: 15px/1.9 system-ui, sans-serif; padding: 0.8em 1em; }}
.kxai-text table {{ border-collapse: collapse; margin: 0 0 1em; background: #fff; }}
.kxai-text caption, .kxai-text th, .kxai-text td {{ text-align: left; color: {INK}; background: #fff; }}
.kxai-text caption, .kxai-text td {{ font: 15px/1.9 system-ui, sans-serif; }}
.kxai-text caption {{ font-weight: 600; }}
.kxai-text th {{ font-weight: 400; font-size: 13px; padding: 0 1em 0 0; white-space: nowrap; }}
.kxai-text td {{ padding: 0; overflow-wrap: anywhere; }}
.kxai-text th, .kxai-text td {{ vertical-align: baseline; }}
.kxai-text span {{ padding: 2px 3px; border-radius: 3px; }}
.kxai-text p {{ font-size: 12px; line-height: 1.4; margin: 0; }}
.kxai-text i {{ display: inline-block; width: 9em; height: 0.7em; margin: 0 0.4em; }}
</style>"""


@dataclass(frozen=True)
class _Word:
    text: str
    space: bool
    value: float
    share: float  # of the bound, in [-1, 1]


@dataclass(frozen=True)
class _Line:
    """One sentence by one method; ``rest`` is relevance after the last word."""

    method: str
    bound: float
    words: list[_Word]
    rest: float


def text_html(
    relevance: Relevance,
    tokens: Sequence[Sequence[str]],
    titles: Sequence[str] | None = None,
    scale: str = "method",
    clip: float = 99.5,
) -> str:
    """Writes sentences as HTML, every token on the colour of its relevance; its value appears under the pointer.

    The result needs no other file and can be put into any page, dark or light; texts are escaped. Pieces of words are
    joined, see :func:`kxai.plots.pieces.pieces`.

    Args:
        relevance: ``(batch, steps)``, finite, or an explanation of sequences; or a dict of these by the name of the
            method, which are then shown below each other, sentence by sentence.
        tokens: per sample at most ``steps`` tokens; relevance of what follows (padding) is stated if it is not 0.
        titles: one line per sample; default none.
        scale: what shares one colour scale: ``"method"`` (default), ``"figure"`` (everything) or ``"panel"`` (nothing:
            each sentence of each method has its own).
        clip: percentile of the magnitudes, (0, 100], from which on colours saturate; default 99.5.

    Returns:
        One ``<div>`` with its style.

    Raises:
        ArgumentError: shapes do not fit each other, or an argument is out of range.
        InputError: relevance is empty or not finite.

    Example:
        >>> page = text_html(np.array([[0.1, -0.9, 0.4]]), [["not", "bad", "<!>"]])
        >>> "&lt;!&gt;" in page, 'title="-0.9"' in page
        (True, True)
    """
    maps = heatmaps(relevance)
    samples = _lines(maps, tokens, titles, scale, clip)
    named = any(line.method for line in samples[0])
    blocks = []
    for sample, lines in enumerate(samples):
        caption = "" if titles is None else f"<caption>{html.escape(titles[sample])}</caption>"
        rows = []
        for line in lines:
            head = f'<th title="scale ±{line.bound:.3g}">{html.escape(line.method)}</th>' if named else ""
            rows.append(f"<tr>{head}<td>{_spans(line)}</td></tr>")
        blocks.append(f"<table>{caption}{''.join(rows)}</table>")
    return "\n".join(['<div class="kxai-text">', _STYLE, *blocks, _legend(_stated(maps, scale, clip)), "</div>"])


def _spans(line: _Line) -> str:
    found: list[str] = []
    for word in line.words:
        ground = "#" + bytes(diverging(np.array(word.share))).hex()
        ink = "#000" if _LIGHT[0] <= word.share <= _LIGHT[1] else "#fff"
        space = " " if word.space and found else ""
        shown, value = html.escape(word.text), f"{word.value:.4g}"
        found.append(f'{space}<span style="background:{ground};color:{ink}" title="{value}">{shown}</span>')
    return "".join(found) + (f" <small>{line.rest:.3g} after the last token</small>" if line.rest else "")


def _legend(note: str) -> str:
    stops = ",".join("#" + bytes(color).hex() for color in diverging(np.linspace(-1, 1, 9)))
    bar = f'<i style="background:linear-gradient(to right,{stops})"></i>'
    return f"<p>−{bar}+ &nbsp; {html.escape(note)}</p>"


def text_terminal(
    relevance: Relevance,
    tokens: Sequence[Sequence[str]],
    titles: Sequence[str] | None = None,
    scale: str = "method",
    clip: float = 99.5,
    color: bool | None = None,
    width: int = 100,
) -> str:
    """Writes sentences for a terminal: in colours if it has them, else with a number after every token.

    Args:
        relevance, tokens, titles, scale, clip: as in :func:`text_html`.
        color: True writes 24-bit colours, False numbers; None (default) colours if stdout is a terminal, unless the
            environment says ``NO_COLOR`` or ``TERM=dumb``.
        width: of a line in columns, >= 20, default 100.

    Returns:
        The text, ready to be printed.

    Raises:
        ArgumentError: shapes do not fit each other, or an argument is out of range.
        InputError: relevance is empty or not finite.

    Example:
        >>> print(text_terminal({"lrp": np.array([[0.1, -0.9]])}, [["so", "bad"]], clip=100, color=False))
        lrp  so +0.1  bad -0.9
        scale ±0.9
    """
    check_integer("width", width, least=20)
    maps = heatmaps(relevance)
    samples = _lines(maps, tokens, titles, scale, clip)
    colored = _terminal_has_colors() if color is None else color
    margin = max(len(line.method) for line in samples[0])
    margin += 2 if margin else 0
    found = []
    for sample, lines in enumerate(samples):
        if titles is not None:
            found.append(visible(titles[sample]) if titles[sample] else "")
        for line in lines:
            parts = list(_colored(line) if colored else _numbered(line))
            if line.rest:
                parts.append((note := f"  ({line.rest:.3g} after the last token)", len(note)))
            found += _wrapped(line.method, margin, parts, width)
    return "\n".join([*found, _stated(maps, scale, clip)])


def _terminal_has_colors() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _colored(line: _Line) -> Iterator[tuple[str, int]]:
    for word in line.words:
        red, green, blue = (int(c) for c in diverging(np.array(word.share)))
        ink = "38;2;0;0;0" if _LIGHT[0] <= word.share <= _LIGHT[1] else "38;2;255;255;255"
        space = " " if word.space else ""
        yield f"{space}\x1b[48;2;{red};{green};{blue};{ink}m{word.text}{_RESET}", len(space) + _columns(word.text)


def _numbered(line: _Line) -> Iterator[tuple[str, int]]:
    for word in line.words:
        text = f"{'  ' if word.space else ' ~'}{word.text} {word.value:+.2g}"
        yield text, _columns(text)


def _columns(text: str) -> int:
    """Columns that a text takes: East Asian characters two, combining ones none."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 or unicodedata.category(c) == "Cf" for c in text)


def _wrapped(method: str, margin: int, parts: list[tuple[str, int]], width: int) -> list[str]:
    lines, used = [f"{method:<{margin}}"], margin
    fresh = True
    for text, columns in parts:
        if not fresh and used + columns > width:
            lines.append(" " * margin)
            used, fresh = margin, True
        if fresh:  # No space at the beginning of a line.
            columns -= len(text) - len(text.lstrip(" "))
            text = text.lstrip(" ")
        lines[-1] += text
        used, fresh = used + columns, False
    return lines


def _stated(maps: dict[str, np.ndarray], scale: str, clip: float) -> str:
    """The scales in words; unlike a figure, a text has no axis that shows them."""
    found = bounds(maps, scale, clip)
    note = stated(maps, found, scale, clip)
    if (bound := one_bound(found)) is not None:
        return f"scale ±{bound:.3g}" + (f", {note}" if note else "")
    each = ", ".join(f"{visible(name)} ±{values[0]:.3g}" for name, values in found.items())
    return f"{note}: {each}" if scale == "method" else note


def _lines(
    maps: dict[str, np.ndarray], tokens: Sequence[Sequence[str]], titles: Sequence[str] | None, scale: str, clip: float,
) -> list[list[_Line]]:  # fmt: skip
    """Per sample one line per method."""
    _check(maps, tokens, titles)
    bound = bounds(maps, scale, clip)
    samples = []
    for sample, words in enumerate(tokens):
        shown, lines = pieces(words), []
        for name, values in maps.items():
            row, limit = values[sample], bound[name][sample]
            shares = scaled(row, limit)
            found = [_Word(*piece, float(v), float(s)) for piece, v, s in zip(shown, row, shares, strict=False)]
            lines.append(_Line(visible(name) if name else "", limit, found, float(row[len(words) :].sum())))
        samples.append(lines)
    return samples


def _check(maps: dict[str, np.ndarray], tokens: Sequence[Sequence[str]], titles: Sequence[str] | None) -> None:
    shapes = {name: values.shape for name, values in maps.items()}
    shape = next(iter(shapes.values()), ())
    if len(set(shapes.values())) != 1 or len(shape) != 2 or 0 in shape:
        raise ArgumentError(
            "This is no relevance of sentences.",
            expected="one shape (batch, steps) for all methods, nowhere 0",
            received=str(shapes if "" not in shapes else shape),
            fix="take explanation.heatmap(), which adds up the channels of embedded tokens.",
        )
    check_tokens(tokens, *shape)
    check_texts(titles, shape[0], "titles", "sample")
