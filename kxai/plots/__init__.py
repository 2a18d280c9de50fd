"""Pictures of relevance: pure functions on NumPy arrays that return arrays, matplotlib figures and text.

Nothing is shown, and pyplot with its global state is never touched. One colour map is used throughout: white is zero,
red is positive, blue is negative. Where colours saturate below the largest magnitude, the figure says at which.
"""

from kxai.plots.bars import bars
from kxai.plots.color import diverging
from kxai.plots.draw import draw
from kxai.plots.figure import figure
from kxai.plots.flow import flow
from kxai.plots.logo import logo
from kxai.plots.pictures import pictures
from kxai.plots.raster import heatmap_rgb, overlay, to_rgb
from kxai.plots.scale import limit
from kxai.plots.series import series
from kxai.plots.sheet import sheet
from kxai.plots.strip import strip
from kxai.plots.text import text_html, text_terminal

__all__ = [
    "bars",
    "diverging",
    "draw",
    "figure",
    "flow",
    "heatmap_rgb",
    "limit",
    "logo",
    "overlay",
    "pictures",
    "series",
    "sheet",
    "strip",
    "text_html",
    "text_terminal",
    "to_rgb",
]
