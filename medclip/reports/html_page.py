"""One HTML file that loads nothing and runs nothing: template, style and a policy that has browsers hold it to that.

Every page extends `templates/page.html.j2` and takes its sections, tables, facts and figures from
`templates/parts.html.j2`; what computes or formats is Python, and reaches a template as values.
A page that searches brings one script of ours along, inline; the policy lets a browser run that text and no other.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from medclip.wording import capital, count, figure, number, percent

_LONG = 24
"""Letters of a word that may have to be broken."""
_SEPARATED = re.compile(r"(?<=[/_.-])(?=[^/_.-])")


def render_page(
    template: str, styles: Sequence[str], values: Mapping[str, Any], *, script: str = "", images: str = "data:"
) -> str:
    """Render a template. All text is escaped by the template engine.

    Args:
        template: File of the folder `templates`.
        styles: Style sheets of that folder, in order.
        values: Values that the template shows, and functions that it calls; it also gets `css` and `policy`.
        script: Script of that folder, which the template gets as `script`; "" for none.
        images: Sources that a browser may load images from, as a policy names them.

    Returns:
        HTML with its style inline, its images as data, and a policy that lets a browser load nothing else.
    """
    css = "".join(map(_text_of, styles))
    code = _text_of(script) if script else ""
    policy = f"default-src 'none'; style-src {_hash(css)}; img-src {images}; base-uri 'none'; form-action 'none'"
    policy += f"; script-src {_hash(code)}" if script else ""
    page = _environment().get_template(template)
    return re.sub(r"\n{2,}", "\n", page.render(**values, css=_Markup(css), script=_Markup(code), policy=policy))


@cache
def _environment() -> Any:
    """Return the template engine, which keeps what it compiles: a report of fifty pages needs it fifty times."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    # Without trim_blocks: the end of a line behind {% endif %} is the blank between two sentences.
    loader = FunctionLoader(_text_of)
    environment = Environment(autoescape=True, undefined=StrictUndefined, lstrip_blocks=True, loader=loader)
    words = {"capital": capital, "count": count, "figure": figure, "number": number, "percent": percent}
    environment.globals.update(words, breakable=breakable)
    return environment


@cache
def _text_of(name: str) -> str:
    return (files("medclip.reports") / "templates" / name).read_text(encoding="utf-8")


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


@dataclass(frozen=True)
class Td:
    """A cell: its text, what stands small below, and how it looks."""

    text: str
    small: tuple[str, ...] = ()
    css: str = ""
    """"words" for text that wraps, "h0" to "h4" for a shade."""


@dataclass(frozen=True)
class Tr:
    """A row; without cells it is the heading of those that follow."""

    head: str
    cells: tuple[Td, ...] = ()
    is_sentence: bool = False
    """Whether the head is all of it, and no heading: a sentence over the whole width."""


@dataclass(frozen=True)
class Grid:
    """A table with a caption."""

    caption: str
    heads: tuple[str, ...]
    """Of all columns, that of the row heads first."""
    rows: tuple[Tr, ...]
    dense: bool = False
    note: str = ""
    """Stands beside the caption where the table is folded."""

    def words(self, column: int) -> bool:
        """Whether a column holds words, so that its head stands at the left."""
        first = next((row for row in self.rows if row.cells), None)
        return column == 0 or (first is not None and first.cells[column - 1].css == "words")

    def __bool__(self) -> bool:
        """Whether there is anything in it."""
        return any(row.cells or row.is_sentence for row in self.rows)


def prose(text: str) -> Td:
    """Make a cell of words."""
    return Td(text, css="words")


def image_uri(data: bytes, kind: str) -> str:
    """Write an image of a kind, such as "png", as its own source."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def svg_uri(svg: str) -> str:
    """Write a drawing as the source of an image: it keeps its styles, which the page's policy would refuse inline."""
    return image_uri(svg.encode(), "svg+xml")


class _Markup(str):
    """Markup of our own: text that is not escaped again."""

    def __html__(self) -> str:
        return self
