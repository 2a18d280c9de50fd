"""Words in colour: what a page or a terminal shows is checked as a reader's program would read it."""

from __future__ import annotations

import html.parser
import re

import numpy as np
import pytest

from kxai import plots
from kxai.errors import ArgumentError, InputError
from kxai.plots.pieces import pieces

ANSI = re.compile(r"\x1b\[[\d;]*m")


class Page(html.parser.HTMLParser):
    """Spans with their attributes and text; checks that every tag is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.spans: list[dict] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        if tag == "span":
            self.spans.append({**dict(attributes), "text": ""})

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if self.open and self.open[-1] == "span":
            self.spans[-1]["text"] += data


def test_page_shows_tokens_colours_and_values():
    values = np.array([[0.5, -1.0, 0.0]])
    spans = Page(plots.text_html(values, [["good", "bad", "so"]], clip=100)).spans
    assert [span["text"] for span in spans] == ["good", "bad", "so"]
    assert [float(span["title"]) for span in spans] == [0.5, -1.0, 0.0]
    for span, share in zip(spans, values[0], strict=True):
        ground, ink = re.fullmatch(r"background:#(\w{6});color:#(\w+)", span["style"]).groups()
        assert bytes.fromhex(ground) == bytes(plots.diverging(share))
        assert (ink == "fff") == (abs(share) > 0.7)


def test_words_are_readable_on_every_colour():
    values = np.linspace(-1, 1, 513)[None]
    for span in Page(plots.text_html(values, [["a"] * 513], clip=100)).spans:
        ground, ink = re.fullmatch(r"background:#(\w{6});color:#(\w+)", span["style"]).groups()
        value = np.frombuffer(bytes.fromhex(ground), np.uint8) / 255
        light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        contrast = 1.05 / (light + 0.05) if ink == "fff" else (light + 0.05) / 0.05
        assert contrast >= 4.5  # what WCAG asks of texts


def test_characters_that_join_others_stay():
    persian, flag = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\U0001f3f3\ufe0f\u200d\U0001f308"
    spans = Page(plots.text_html(np.ones((1, 3)), [[persian, flag, "\u200d"]])).spans
    assert [span["text"] for span in spans] == [persian, flag, "\ufffd"]


def test_page_is_readable_wherever_it_is_put():
    page = plots.text_html(np.ones((1, 1)), [["a"]])
    # Ground and ink of everything are stated, so that a dark page does not shine through.
    for selector in (r"\.kxai-text", r"\.kxai-text caption, \.kxai-text th, \.kxai-text td"):
        assert re.search(selector + r" \{[^}]*background: #fff[^}]*\}", page)
        assert re.search(selector + r" \{[^}]*[^-]color: #\w+[^}]*\}", page)
    # Tables do not inherit the height of lines where a page names no document type: rows would overlap.
    assert re.search(r"\.kxai-text td \{[^}]*font: 15px/1\.9", page)
    # A word that is longer than the page breaks.
    assert re.search(r"\.kxai-text td \{[^}]*overflow-wrap: anywhere", page)
    assert not re.search(r"https?:|url\(|<script|@import", page)


def test_nothing_of_a_text_becomes_markup():
    evil = '"><script>alert(1)</script>&amp;'
    page = plots.text_html({evil: np.ones((1, 2))}, [[evil, "it's"]], titles=[evil])
    assert "<script" not in page
    assert Page(page).spans[0]["text"] == evil
    assert Page(page).text.count(evil) == 3  # title, method, token


def test_methods_stand_below_each_other_with_their_own_scales():
    maps = {"one": np.array([[1.0, 2.0], [4.0, 0.0]]), "two": np.array([[10.0, -20.0], [0.0, 40.0]])}
    words = [["a", "b"], ["c", "d"]]
    page = plots.text_html(maps, words, titles=["first", "second"], clip=100)
    assert re.sub(r"\s+", " ", Page(page).text).startswith(" firstonea btwoa b secondonec dtwoc d")
    spans = Page(page).spans
    assert [span["style"] for span in spans[:2]] != [span["style"] for span in spans[2:4]]  # the signs differ
    assert spans[0]["style"] == spans[2]["style"]  # a quarter of each method's bound
    assert "one ±4, two ±40" in page
    together = Page(plots.text_html(maps, words, scale="figure", clip=100)).spans
    assert together[0]["style"] != together[2]["style"]
    alone = Page(plots.text_html(maps, words, scale="panel", clip=100)).spans
    assert alone[1]["style"] == alone[4]["style"]  # the largest value of its sentence


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["[CLS]", "un", "##able", "##", "[SEP]"], "[CLS] unable ## [SEP]"),
        (["<s>", "▁the", "▁film", "s", "▁", "x", "</s>"], "<s> the films ␣x </s>"),
        (["The", "Ġfilm", "s", "Ċ", "ĠA"], "The films⏎ A"),
        (["plain", "words", "\n", ""], "plain words ⏎ ∅"),
        (["a\x1b[31m", "\u200b"], "a\ufffd[31m \ufffd"),
    ],
)
def test_pieces_are_joined_to_words(tokens, expected):
    shown = "".join(" " * space + text for text, space in pieces(tokens))
    assert shown.removeprefix(" ") == expected
    values = np.ones((1, len(tokens)))
    written = plots.text_terminal(values, [tokens], color=True).splitlines()[0]
    assert ANSI.sub("", written) == expected
    assert Page(plots.text_html(values, [tokens])).text.strip().startswith(expected)


def test_terminal_writes_colours():
    written = plots.text_terminal({"m": np.array([[1.0, -0.25]])}, [["yes", "no"]], clip=100, color=True)
    first, last = written.splitlines()
    assert ANSI.sub("", first) == "m  yes no"
    for word, share, ink in (("yes", 1.0, "255;255;255"), ("no", -0.25, "0;0;0")):
        red, green, blue = plots.diverging(np.array(share))
        assert f"\x1b[48;2;{red};{green};{blue};38;2;{ink}m{word}\x1b[0m" in first
    assert last == "scale ±1"


def test_terminal_without_colours_writes_numbers():
    values = np.array([[0.123, -4.0, 0.5, 0.0]])
    written = plots.text_terminal(values, [["un", "##able", "so"]], color=False, clip=100)
    assert written.splitlines()[0] == "un +0.12 ~able -4  so +0.5"
    assert "\x1b" not in written


@pytest.mark.parametrize(
    ("terminal", "environment", "colored"),
    [(True, {}, True), (False, {}, False), (True, {"NO_COLOR": "1"}, False), (True, {"TERM": "dumb"}, False)],
)
def test_colours_are_chosen_by_the_terminal(terminal, environment, colored, monkeypatch):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    assert ("\x1b" in plots.text_terminal(np.ones((1, 1)), [["a"]])) == colored


@pytest.mark.parametrize("color", [True, False])
def test_terminal_breaks_lines(color):
    words = [f"word{i}" for i in range(40)] + ["漢字" * 4] * 5
    written = ANSI.sub("", plots.text_terminal({"lrp": np.ones((1, 45))}, [words], color=color, width=40))
    lines = written.splitlines()[:-1]
    assert max(len(line) + sum(c in "漢字" for c in line) for line in lines) <= 40
    assert lines[0].startswith("lrp  word0")
    assert all(re.match(r" {5}\S", line) for line in lines[1:])
    assert re.findall(r"word\d+", written) == words[:40]


def test_relevance_of_padding_is_stated():
    values = np.array([[1.0, 0.25, 0.5], [1.0, 2.0, 0.0]])
    words = [["a"], ["b", "c"]]
    for written in (plots.text_html(values, words), plots.text_terminal(values, words, color=False)):
        assert written.count("0.75 after the last token") == 1
        assert written.count("after the last token") == 1


def test_zeros_are_white():
    spans = Page(plots.text_html(np.zeros((1, 2)), [["a", "b"]])).spans
    assert {span["style"].split(";")[0] for span in spans} == {"background:#" + bytes(plots.diverging(0.0)).hex()}


@pytest.mark.parametrize("write", [plots.text_html, plots.text_terminal])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.ones(2), [["a", "b"]]), ArgumentError, "no relevance of sentences"),
        ((np.ones((1, 2, 3)), [["a", "b"]]), ArgumentError, r"(?s)no relevance of sentences.*heatmap"),
        (({"a": np.ones((1, 2)), "b": np.ones((1, 3))}, [["a"]]), ArgumentError, "no relevance of sentences"),
        (({}, [["a"]]), ArgumentError, "no relevance of sentences"),
        ((np.ones((1, 2)), ["ab"]), ArgumentError, "wrong structure"),
        ((np.ones((1, 2)), [["a"], ["b"]]), ArgumentError, "tokens do not fit"),
        ((np.ones((1, 2)), [["a", "b", "c"]]), ArgumentError, "tokens do not fit"),
        ((np.ones((1, 2)), [["a"]], ["x", "y"]), ArgumentError, "titles do not fit"),
        ((np.ones((1, 2)), [["a"]], None, "batch"), ArgumentError, "scale is out of range"),
        ((np.ones((1, 2)), [["a"]], None, "method", 0), ArgumentError, "clip is out of range"),
        ((np.full((1, 2), np.nan), [["a"]]), InputError, "Relevance cannot be drawn"),
    ],
)
def test_what_is_refused(write, arguments, error, message):
    with pytest.raises(error, match=message):
        write(*arguments)


@pytest.mark.parametrize("width", [19, 80.0, True])
def test_width_is_checked(width):
    with pytest.raises(ArgumentError, match="width is out of range"):
        plots.text_terminal(np.ones((1, 1)), [["a"]], width=width)


def test_strips_show_words_without_marks():
    drawn = plots.strip(np.ones((1, 3)), tokens=[["un", "##able", "\n"]])
    assert [text.get_text() for text in drawn.axes[0].texts] == ["un", "able", "⏎"]
