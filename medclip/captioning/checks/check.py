"""Check a caption before it becomes a record: its length, its claims, and whether it was said before."""

from __future__ import annotations

import re
from dataclasses import dataclass

from medclip.captioning.agents.agent import Room
from medclip.captioning.checks.claims import AllowedClaims
from medclip.text.checks.closed_words import HEDGES

PROBLEMS = ("empty", "too_long", "too_short", "not_english", "hedge", "claim", "duplicate", "refused")
"""Why a caption is rejected; `refused` is an agent's that had none."""
LEAST_WORDS = 4
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class CaptionProblem:
    """Why a caption does not become a record."""

    kind: str
    """Of `PROBLEMS`."""
    detail: str


def check_patch_caption(caption: str, room: Room, allowed: AllowedClaims) -> CaptionProblem | None:
    """Check one caption by itself.

    Args:
        caption: The caption.
        room: Room of the text tower, in tokens.
        allowed: Claims that the agent may make of this slide.

    Returns:
        The first problem; None for a caption that may be used.
    """
    words = caption.split()
    if not words:
        return CaptionProblem("empty", "the caption has no word")
    if len(words) < LEAST_WORDS:
        return CaptionProblem("too_short", f"{len(words)} words, of {LEAST_WORDS} that are needed")
    tokens = room.count(caption)
    if tokens > room.most:
        return CaptionProblem("too_long", f"{tokens} tokens, of {room.most} that the text tower takes")
    if any(c.isalpha() and ord(c) > 0x24F and c != "µ" for c in caption):
        return CaptionProblem("not_english", "letters that are not Latin")
    if match := HEDGES.search(caption.lower()):
        return CaptionProblem("hedge", f"{match[0]!r} leaves open what is there")
    if refused := allowed.refused(caption):
        named = ", ".join(f"{claim.word} ({claim.kind})" for claim in refused[:3])
        return CaptionProblem("claim", f"not in the agent's list: {named}")
    return None


def words_of(caption: str) -> str:
    """Return a caption as duplicates are told by: its words and numbers in small letters.

    Example:
        >>> words_of("Round  nuclei, 33 µm².") == words_of("round nuclei 33 µm²")
        True
    """
    return " ".join(_WORD.findall(caption.lower()))
