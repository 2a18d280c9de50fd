"""Letters as shapes that can be stretched, and their colours."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from kxai.errors import ArgumentError

if TYPE_CHECKING:
    from matplotlib.path import Path

# Close to the palette of Okabe and Ito, made for all kinds of colour vision; blue, pink and the red of T are moved so
# that all pairs stay apart (tests measure it).
_NUCLEOTIDES = {"A": "#009e73", "C": "#00549e", "G": "#e69f00", "T": "#b23a00", "U": "#b23a00"}
_CHEMISTRY = {
    "AVLIPWFM": "#333333",  # hydrophobic
    "GSTYC": "#009e73",  # polar
    "NQ": "#d896c0",  # amides
    "KRH": "#00549e",  # basic
    "DE": "#d55e00",  # acidic
}
_OTHER = "#999999"
_SLENDER = 0.6  # Width to height from which on a letter fills its place; "I" would become a block.


def letter_colours(alphabet: str, chosen: Mapping[str, str] | None = None) -> dict[str, str]:
    """Chooses a colour for every letter: nucleotides by their kind, amino acids by their chemistry.

    Args:
        alphabet: the letters. If "ACGTUN-" holds all of them, they are nucleotides, else amino acids.
        chosen: colours of some or all letters instead, as matplotlib names them; default None.

    Returns:
        Colours by letter; those of no known meaning are gray.

    Raises:
        ArgumentError: a colour for what is no letter of the alphabet, or for what is no colour.

    Example:
        >>> letter_colours("ACN", {"N": "black"})
        {'A': '#009e73', 'C': '#00549e', 'N': 'black'}

    Source: M. Okabe and K. Ito, "Color universal design" (2008), the palette; Crooks et al., "WebLogo" (2004), the
    groups of amino acids.
    """
    chosen = dict(chosen or {})
    strangers = sorted(set(chosen) - set(alphabet))
    if strangers:
        raise ArgumentError(
            "colors names what is no letter.", expected=f"letters of {alphabet!r}", received=", ".join(strangers)
        )
    from matplotlib.colors import is_color_like

    wrong = [colour for colour in chosen.values() if not is_color_like(colour)]
    if wrong:
        raise ArgumentError(
            "colors holds no colours.", expected='such as "#009e73"', received=", ".join(map(str, wrong))
        )
    amino = {letter: colour for letters, colour in _CHEMISTRY.items() for letter in letters}
    known = _NUCLEOTIDES if set(alphabet.upper()) <= set("ACGTUN-") else amino
    return {letter: chosen.get(letter, known.get(letter.upper(), _OTHER)) for letter in alphabet}


def letter_path(letter: str, lefts: np.ndarray, bottoms: np.ndarray, heights: np.ndarray) -> Path:
    """Sets one letter many times, each as wide as 1 and as high as told, as one path.

    Args:
        letter: one character.
        lefts: left edges ``(n,)``.
        bottoms: where the letter stands, ``(n,)``.
        heights: ``(n,)``; negative ones hang head down.

    Returns:
        The path.

    Example:
        >>> path = letter_path("A", np.array([0.0, 3.0]), np.zeros(2), np.array([2.0, -1.0]))
        >>> path.get_extents().extents.round(2).tolist()
        [0.03, -1.0, 3.97, 2.0]
    """
    from matplotlib.path import Path

    shape, codes = _shape(letter)
    scale = np.stack([np.full(len(heights), 0.94), heights], axis=-1)[:, np.newaxis]
    place = np.stack([lefts + 0.03, bottoms], axis=-1)[:, np.newaxis]
    return Path((shape * scale + place).reshape(-1, 2), np.tile(codes, len(heights)))


@functools.lru_cache
def _shape(letter: str) -> tuple[np.ndarray, np.ndarray]:
    """Vertices in the unit square, and their codes."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.path import Path
    from matplotlib.textpath import TextPath

    path = TextPath((0, 0), letter, size=100, prop=FontProperties(family="DejaVu Sans", weight="bold"))
    vertices, codes = np.array(path.vertices), np.array(path.codes)
    # The point of a CLOSEPOLY is not drawn; here it must not lie outside of the letter.
    for index in np.flatnonzero(codes == Path.CLOSEPOLY):
        vertices[index] = vertices[index - 1]
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    unit = (vertices - low) / (high - low)
    width, height = high - low
    share = min(1.0, width / height / _SLENDER)
    unit[:, 0] = (1 - share) / 2 + share * unit[:, 0]
    return unit, codes
