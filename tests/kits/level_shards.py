"""Texts of three levels for the made-up chest films."""

from __future__ import annotations


def level_texts(number: int) -> dict[str, str]:
    """Return a summary, a full text and tags of an image; one of four has labels alone. Discs have their box."""
    if number % 4 == 3:
        return {}
    shown = "bright disc" if number % 2 else "dark film"
    return {
        "caption": f"A {shown} {number}.",
        "long_captions": f"film {number} of a chest with a {shown}",
        "tags": f"{shown}\nfilm",
        "regions": "10 10 30 30" if number % 2 else "",
    }
