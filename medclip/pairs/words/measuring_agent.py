"""The agent that measures: captions of nuclei and stain, from numbers, by rule. No model, the same text every time.

Its words are bins of measurements (`_BINS`), and the number stands beside them, so that a sentence can be checked. It
revises by measuring again with other stain vectors: a word that does not come out again is taken back, and a density
that moves by more than a fifth becomes a range. What it says is true of the pixels, and says nothing of a diagnosis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medclip.imaging.slides.nuclei import NucleiMeasurements
from medclip.pairs.selection.patches import ANY
from medclip.pairs.words.agent import Answer, CaptionedPatch, Edit, Revision, Usage, sentences_of
from medclip.pairs.words.patch_caption_check import AllowedClaims, Room

VERSION = 1
"""Raised when it writes other captions of the same patch."""
_BINS: Mapping[str, tuple[tuple[float, str], ...]] = {
    "per_mm2": (
        (500, "nearly free of nuclei"),
        (2000, "sparsely cellular"),
        (4500, "moderately cellular"),
        (7000, "densely cellular"),
        (float("inf"), "very densely cellular"),
    ),
    "median_um2": ((22, "small"), (45, "medium-sized"), (float("inf"), "large")),
    "size_variation": (
        (0.25, "even in size"),
        (0.45, "moderately varied in size"),
        (float("inf"), "widely varied in size"),
    ),
    "median_elongation": ((1.35, "round"), (1.8, "oval"), (float("inf"), "elongated")),
    "median_solidity": ((0.87, "irregular"), (0.92, "slightly irregular"), (float("inf"), "smooth")),
    "haematoxylin": ((0.25, "pale"), (0.5, "moderate"), (float("inf"), "dark")),
    "eosin": ((0.12, "pale"), (0.3, "moderate"), (float("inf"), "strong")),
    "spacing": ((1.25, "crowded"), (2.5, "closely spaced"), (float("inf"), "widely spaced")),
}
"""Upper ends, and words."""
_MOVED = 0.2
_ENOUGH_TISSUE = 0.05


@dataclass(frozen=True)
class MeasuringAgent:
    """Writes captions of measurements."""

    name: str = "measured"
    at_once: int = 1
    measures: bool = True

    @property
    def identity(self) -> Mapping[str, Any]:
        """Its version: nothing else changes its texts."""
        return {"agent": self.name, "version": VERSION}

    @property
    def allowed(self) -> AllowedClaims:
        """Nuclei and stain."""
        return AllowedClaims(frozenset({"nucleus"}))

    def describe(self, patch: CaptionedPatch) -> Answer:
        """Write the measurements with the slide's stain vectors in words, the most telling first."""
        assert patch.measured is not None
        return Answer(" ".join(_sentences(patch.measured, patch.prompts.organ)), Usage(calls=1))

    def revise(self, patch: CaptionedPatch, text: str) -> Revision:
        """Take back what a second measurement does not confirm."""
        assert patch.measured is not None and patch.measured_again is not None  # noqa: PT018
        first, second = patch.measured, patch.measured_again
        edits = []
        names = dict(zip(_sentences(first, patch.prompts.organ), _facts_of(first), strict=True))
        for number, sentence in enumerate(sentences_of(text)):
            fact = names.get(sentence)
            if fact is None or fact == "tissue":
                continue
            differs = any(_word(name, first) != _word(name, second) for name in _PARTS[fact])
            if fact == "cells":
                if differs or abs(first.per_mm2 - second.per_mm2) > _MOVED * first.per_mm2:
                    edits.append(Edit("modify", number, _cells(first, patch.prompts.organ, second)))
            elif differs:
                edits.append(Edit("delete", number))
        return Revision(tuple(edits), Usage(calls=1))

    def summarise(self, text: str, room: Room) -> Answer:
        """Keep the first sentences that fit; of a first one that does not, what stands before its numbers."""
        kept: list[str] = []
        for sentence in sentences_of(text):
            if not kept and not room.fits(sentence) and ", " in sentence:
                return Answer(f"{sentence.partition(', ')[0]}.", Usage(calls=1))
            if kept and not room.fits(" ".join([*kept, sentence])):
                break
            kept.append(sentence)
        return Answer(" ".join(kept), Usage(calls=1))


_PARTS: Mapping[str, Sequence[str]] = {
    "cells": ("per_mm2",),
    "nuclei": ("median_um2", "size_variation"),
    "shape": ("median_elongation", "median_solidity"),
    "stain": ("haematoxylin", "eosin"),
    "spacing": ("spacing",),
}


def _facts_of(measured: NucleiMeasurements) -> list[str]:
    """Return what is said of a patch, in order."""
    sized = measured.median_um2 == measured.median_um2  # not NaN
    names = ["cells"]
    if sized:
        names += ["nuclei", "shape"]
    if measured.tissue_share >= _ENOUGH_TISSUE:
        names.append("stain")
    if sized and measured.median_distance_um == measured.median_distance_um:
        names.append("spacing")
    return [*names, "tissue"] if measured.tissue_share < 0.9 else names


def _sentences(measured: NucleiMeasurements, organ: str) -> list[str]:
    return [_sentence(name, measured, organ) for name in _facts_of(measured)]


def _sentence(name: str, m: NucleiMeasurements, organ: str) -> str:
    if name == "cells":
        return _cells(m, organ)
    if name == "nuclei":
        across = 2 * (m.median_um2 / 3.14159265) ** 0.5
        return (
            f"Nuclei are {_word('median_um2', m)}, {m.median_um2:.0f} µm² or {across:.1f} µm across, "
            f"and {_word('size_variation', m)}."
        )
    if name == "shape":
        return f"They are {_word('median_elongation', m)} with {_word('median_solidity', m)} outlines."
    if name == "stain":
        return f"Haematoxylin is {_word('haematoxylin', m)} and eosin {_word('eosin', m)}."
    if name == "spacing":
        return f"Neighbouring nuclei are {_word('spacing', m)}, {m.median_distance_um:.0f} µm apart."
    return f"Tissue covers {100 * m.tissue_share:.0f} % of the patch."


def _cells(m: NucleiMeasurements, organ: str, again: NucleiMeasurements | None = None) -> str:
    low, high = sorted((m, again or m), key=lambda one: one.per_mm2)
    words = list(dict.fromkeys((_word("per_mm2", low), _word("per_mm2", high))))
    numbers = list(dict.fromkeys(f"{_rounded(one.per_mm2):,}" for one in (low, high)))
    if not high.num_nuclei:
        return f"{_subject(organ)} without nuclei."
    shares = list(dict.fromkeys(f"{100 * share:.0f}" for share in sorted((low.area_share, high.area_share))))
    counted = f"{' to '.join(numbers)} nuclei per mm² on {' to '.join(shares)} % of the tissue"
    return f"{_subject(organ)} that is {' to '.join(words)}, {counted}."


def _subject(organ: str) -> str:
    return "Histology patch of tissue" if organ == ANY else f"Histology patch of {organ} tissue"


def _rounded(number: float) -> int:
    """Round to two digits: more would be noise."""
    return int(float(f"{number:.2g}"))


def _word(name: str, m: NucleiMeasurements) -> str:
    if name == "spacing":
        value = m.median_distance_um / max(2 * (m.median_um2 / 3.14159265) ** 0.5, 1e-6)
    else:
        value = float(getattr(m, name))
    return next((word for end, word in _BINS[name] if value < end), _BINS[name][-1][1])
