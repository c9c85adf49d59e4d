"""Colours of the audit's page: enough contrast by day, by night and on paper."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from medclip.reports.audit.report import STYLES

TEXT, GRAPHIC = 4.5, 3.0
"""WCAG 2.2 AA: text, and what a drawing needs to be understood."""
PAIRS = [
    *[(ink, ground, TEXT) for ink in ("ink", "soft", "accent") for ground in ("page", "paper")],
    *[(ink, "alarm", TEXT) for ink in ("ink", "alarm-ink", "accent")],
    ("alarm-ink", "paper", TEXT),
    *[("ink", f"h{n}", TEXT) for n in range(5)],
    ("soft", "h0", TEXT),
    *[(f"c{n}", ground, GRAPHIC) for n in range(6) for ground in ("page", "paper")],
    ("alarm-ink", "page", GRAPHIC),
]


def _css() -> str:
    folder = files("medclip.reports") / "templates"
    return "".join((folder / name).read_text(encoding="utf-8") for name in STYLES)


def _blocks(css: str, media: str) -> str:
    """Give the text of every block of a media query; of the page itself where it is empty."""
    outside, inside, place = "", "", 0
    for found in re.finditer(r"@media ([^{]*)\{", css):
        if found.start() < place:
            continue
        outside += css[place : found.start()]
        depth, end = 1, found.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(css[end], 0)
            end += 1
        if media and media in found.group(1):
            inside += css[found.end() : end - 1]
        place = end
    return inside if media else outside + css[place:]


def _colours(mode: str) -> dict[str, str]:
    css = _css()
    found: dict[str, str] = {}
    for part in ("", mode) if mode else ("",):
        for root in re.findall(r":root\s*\{([^}]*)\}", _blocks(css, part)):
            found.update(dict(re.findall(r"--([\w-]+):\s*(#[0-9a-fA-F]{3,6})", root)))
    return found


def _light(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    high, low = sorted((_light(a), _light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard():
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("mode", ["", "prefers-color-scheme: dark", "print"])
def test_every_pair_of_colours_has_enough_contrast(mode: str):
    colours = _colours(mode)
    weak = {
        (a, b): round(contrast(colours[a], colours[b]), 2)
        for a, b, least in PAIRS
        if contrast(colours[a], colours[b]) < least
    }
    assert not weak


def test_dark_and_print_set_every_colour_of_the_audit():
    own = {name for name in _colours("") if re.fullmatch(r"[ch]\d|alarm(-ink)?", name)}
    assert len(own) == 13
    for mode in ("dark", "print"):
        roots = "".join(re.findall(r":root\s*\{([^}]*)\}", _blocks(_css(), mode)))
        assert own <= set(re.findall(r"--([\w-]+):", roots))
