"""One HTML file that loads nothing and runs nothing: template, style and a policy that has browsers hold it to that."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

_LONG = 24
"""Letters of a word that may have to be broken."""
_SEPARATED = re.compile(r"(?<=[/_.-])(?=[^/_.-])")


def render_page(
    template: str, styles: Sequence[str], values: Mapping[str, Any], helpers: Mapping[str, Callable[..., Any]]
) -> str:
    """Render a template of this folder. All text is escaped by the template engine.

    Args:
        template: File below this folder.
        styles: Style sheets below this folder, in order.
        values: What the template shows; it also gets `css` and `policy`.
        helpers: Functions that the template may call.

    Returns:
        HTML with its style inline, its images as data, and a policy that lets a browser load nothing else.
    """
    from jinja2 import Environment, StrictUndefined

    folder = files("medclip.reports")
    css = "".join((folder / name).read_text(encoding="utf-8") for name in styles)
    # Without trim_blocks: the end of a line behind {% endif %} is the blank between two sentences.
    environment = Environment(autoescape=True, undefined=StrictUndefined, lstrip_blocks=True)
    environment.globals.update(helpers, breakable=breakable)
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    page = environment.from_string((folder / template).read_text(encoding="utf-8"))
    return re.sub(r"\n{2,}", "\n", page.render(**values, css=_Markup(css), policy=policy))


def breakable(text: str) -> _Markup:
    """Let a browser break long file names behind their separators, and within a word only where there is none.

    Example:
        >>> str(breakable("row 3: chest_left_lower_lobe-0001.png"))
        'row 3: chest_<wbr>left_<wbr>lower_<wbr>lobe-<wbr>0001.<wbr>png'
    """
    words = re.split(r"(\S+)", text)
    return _Markup("".join("<wbr>".join(map(escape, _SEPARATED.split(w) if len(w) > _LONG else [w])) for w in words))


class _Markup(str):
    """Markup of our own: text that is not escaped again."""

    def __html__(self) -> str:
        return self
