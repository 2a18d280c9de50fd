"""One HTML file out of facts, arrays and the page's own style and script."""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_ASSETS = Path(__file__).parent / "assets"
_SCRIPTS = ("values.js", "scale.js", "pixels.js", "views.js", "hover.js", "details.js", "page.js")


def page(title: str, facts: dict[str, Any], blobs: Sequence[str]) -> str:
    """Writes the page.

    Its policy forbids every connection, and runs no other script than its own, which it knows by its hash.

    Args:
        title: any text.
        facts: JSON-able.
        blobs: base64 texts, which the facts refer to by number.

    Returns:
        The HTML.

    Example:
        >>> text = page("<b>", {"title": "</script>"}, ["AAAA"])
        >>> "<b>" in text, "&lt;b&gt;" in text, text.count("</script>")
        (False, True, 3)
    """
    style, script = _asset("page.css"), _script()
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    policy += "; base-uri 'none'; form-action 'none'"
    # A name of a file may hold what is no character.
    shown = html.escape(title.encode("utf-8", "replace").decode("utf-8"))
    written = json.dumps(facts, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    stored = "\n".join(
        f'<script type="text/plain" id="blob{number}">{text}</script>' for number, text in enumerate(blobs)
    )
    filled = {"policy": policy, "title": shown, "style": style, "script": script, "facts": written, "blobs": stored}
    return re.sub(r"\{\{(\w+)\}\}", lambda match: filled[match[1]], _asset("page.html"))


@functools.cache
def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _script() -> str:
    # One function around all files: nothing of them is visible outside.
    return '"use strict";\n(() => {\n' + "\n".join(map(_asset, _SCRIPTS)) + "\n})();\n"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
