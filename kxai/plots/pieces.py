"""Tokens as a person reads them: words without the marks by which tokenizers join pieces."""

from __future__ import annotations

from collections.abc import Sequence

# Marks of the pieces that begin a word: SentencePiece, byte-level BPE.
_BEGINS = ("▁", "Ġ")
_CONTINUES = "##"  # WordPiece
_VISIBLE = {"\n": "⏎", "\r": "⏎", "\t": "⇥", "Ċ": "⏎"}
_BLANK = {"": "∅", " ": "␣"}
_JOINERS = "\u200c\u200d"  # without a shape themselves, but words of Persian and many emoji consist of them


def pieces(tokens: Sequence[str]) -> list[tuple[str, bool]]:
    """What to show per token, and whether a space stands before it.

    The marks "##" (WordPiece), "▁" (SentencePiece) and "Ġ" (byte-level BPE) are taken off and decide about the spaces;
    tokens of a sentence without such marks are words. Line breaks and other characters without a shape become visible.

    Args:
        tokens: of one sentence.

    Returns:
        (text, space) per token; no text is empty.

    Example:
        >>> pieces(["un", "##believ", "##able", "!"])
        [('un', True), ('believ', False), ('able', False), ('!', True)]
        >>> pieces(["▁not", "▁b", "ad", "</s>"])
        [('not', True), ('b', True), ('ad', False), ('</s>', True)]
    """
    texts = [str(token) for token in tokens]
    marked = any(text.startswith(_BEGINS) for text in texts)
    found = []
    for text in texts:
        if text.startswith(_CONTINUES) and len(text) > len(_CONTINUES):
            shown, space = text[len(_CONTINUES) :], False
        elif marked:
            begins = text.startswith(_BEGINS)
            shown, space = text[begins:] or " ", begins or _is_special(text)
        else:
            shown, space = text, True
        found.append((visible(shown), space))
    return found


def _is_special(text: str) -> bool:
    """Control tokens such as "<s>" and "[CLS]"."""
    return len(text) > 2 and text[0] + text[-1] in ("<>", "[]")


def visible(text: str) -> str:
    """A text in one line, without control characters; never empty.

    Args:
        text: any text.

    Example:
        >>> visible("a\\n"), visible(""), visible("\\x1b[31m")
        ('a⏎', '∅', '�[31m')
    """
    joiners = _JOINERS if text.strip(_JOINERS) else ""  # alone they are to be seen
    shown = "".join(_VISIBLE.get(c, c if c.isprintable() or c in joiners else "\ufffd") for c in text)
    return _BLANK.get(shown, shown)
