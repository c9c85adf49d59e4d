"""One HTML file that loads nothing and runs nothing: template, style and a policy that has browsers hold it to that.

A page that searches brings one script of ours along, inline; the policy lets a browser run that text and no other.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

_LONG = 24
"""Letters of a word that may have to be broken."""
_SEPARATED = re.compile(r"(?<=[/_.-])(?=[^/_.-])")


def render_page(
    template: str,
    styles: Sequence[str],
    values: Mapping[str, Any],
    helpers: Mapping[str, Callable[..., Any]],
    *,
    script: str = "",
    images: str = "data:",
) -> str:
    """Render a template of this folder. All text is escaped by the template engine.

    Args:
        template: File below this folder; it may include others, named from this folder, too.
        styles: Style sheets below this folder, in order.
        values: Values that the template shows; it also gets `css` and `policy`.
        helpers: Functions that the template may call.
        script: Script below this folder, which the template gets as `script`; "" for none.
        images: Sources that a browser may load images from, as a policy names them.

    Returns:
        HTML with its style inline, its images as data, and a policy that lets a browser load nothing else.
    """
    css = "".join(map(_text_of, styles))
    code = _text_of(script) if script else ""
    policy = f"default-src 'none'; style-src {_hash(css)}; img-src {images}; base-uri 'none'; form-action 'none'"
    policy += f"; script-src {_hash(code)}" if script else ""
    page = _template(template, frozenset(helpers.items()))
    return re.sub(r"\n{2,}", "\n", page.render(**values, css=_Markup(css), script=_Markup(code), policy=policy))


@cache
def _template(name: str, helpers: frozenset[tuple[str, Any]]) -> Any:
    """Return a compiled template: a report of fifty pages needs it fifty times, and it takes 0.1 s."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    # Without trim_blocks: the end of a line behind {% endif %} is the blank between two sentences.
    parts = FunctionLoader(_text_of)  # of what a template includes
    environment = Environment(autoescape=True, undefined=StrictUndefined, lstrip_blocks=True, loader=parts)
    environment.globals.update(helpers, breakable=breakable)
    return environment.get_template(name)


@cache
def _text_of(name: str) -> str:
    return (files("medclip.reports") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return how a policy names an inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def breakable(text: str) -> _Markup:
    """Let a browser break long file names behind their separators, and within a word only where there is none.

    Example:
        >>> str(breakable("row 3: chest_left_lower_lobe-0001.png"))
        'row 3: chest_<wbr>left_<wbr>lower_<wbr>lobe-<wbr>0001.<wbr>png'
    """
    words = re.split(r"(\S+)", text)
    return _Markup("".join("<wbr>".join(map(escape, _SEPARATED.split(w) if len(w) > _LONG else [w])) for w in words))


def svg_uri(svg: str) -> str:
    """Write a drawing as the source of an image: it keeps its styles, which the page's policy would refuse inline."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


class _Markup(str):
    """Markup of our own: text that is not escaped again."""

    def __html__(self) -> str:
        return self
