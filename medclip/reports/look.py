"""Show a look at a pile of pairs as one page: what stands out first, then counts, texts, copies, alignment, examples.

It names no patient and no file, and prints only sentences that many patients share; but examples are images and texts
of single patients, and the page says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import printable
from medclip.pairs.looking.alignment import ModalityAlignment
from medclip.pairs.looking.boilerplate import LEAST_PATIENTS
from medclip.pairs.looking.pile_look import Example, PileLook
from medclip.pairs.looking.texts import FAULTS
from medclip.reports.drawings import FIRST, INK, SECOND, SOFT, dress, themed_svg
from medclip.reports.html_page import image_uri, render_page, svg_uri
from medclip.reports.model_card import modality_title
from medclip.version import __version__
from medclip.wording import by_reason, capital, estimate, figure, list_of, number, percent_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STYLES = ("style.css", "pretrain.css", "look.css")
_MOST_ROWS, _MOST_CONCEPTS = 12, 30
_MOST_DRAWN = 9
"""Modalities whose cosines are drawn."""
_TITLES = {
    "modality": "Modality",
    "split": "Split",
    "source": "Source",
    "license": "Licence",
    "language": "Language",
    "words": "Words of the longest caption",
}
_WAYS = {
    "pixels": "by equal pixels",
    "hash": "by perceptual hashes",
    "registered": "by registering: cropped or turned",
    "embedding": "by vectors of the pack",
}
_PNG = b"\x89PNG"
_OF_RECORDS = "by equal bytes of the signal"
_ENDS = {"worst": "Worst aligned", "best": "Best aligned", "drawn": "Drawn at random"}


def render_look(look: PileLook) -> str:
    """Render the page."""
    alignment = look.alignment
    unnamed = [c for c in _TITLES if all(not row.value for row in look.counts if row.column == c)]
    drawn = () if alignment is None else alignment.modalities[:_MOST_DRAWN]
    values = {
        "look": look,
        "figures_": _figures(look),
        "findings": [(one.severity, one.text.split("`")) for one in look.findings],
        "counts": [(_TITLES[column], *_count_rows(look, column)) for column in _TITLES if column not in unnamed],
        "unnamed": list_of([_TITLES[column].lower() for column in unnamed]),
        "faults": [(capital(FAULTS[name]), mask.sum()) for name, mask in look.texts.faults.items() if mask.any()],
        "lengths": _lengths(look),
        "repeats": {
            kind: [one for one in look.boilerplate.repeats if one.kind == kind] for kind in ("text", "sentence")
        },
        "least_patients": LEAST_PATIENTS,
        "concepts": look.concepts.concepts[:_MOST_CONCEPTS],
        "tails": _tails(look),
        "tail_svg": svg_uri(_tail_svg(look)) if len(look.words.counts_K) else "",
        "copies": _copies(look),
        "against": [(one, by_reason(one.by_way), one.to_drop_N.sum()) for one in look.against],
        "alignment": [
            (_title(one.modality), one, _ends(one.matched), _ends(one.shuffled), estimate(one.auroc, one.low, one.high))
            for one in (alignment.modalities if alignment else ())
        ],
        "alignment_svg": svg_uri(_cosines_svg(drawn)) if drawn else "",
        "pack": "" if alignment is None else f"{alignment.pack['name']} {alignment.pack['version']}",
        "examples": _groups(look),
        "has_images": any(one.image for one in look.examples),
        "is_single": bool(look.examples),
        "percent_of": percent_of,
        "printable": printable,
        "table_names": list(look.tables()),
        "version": __version__,
    }
    return render_page("look.html.j2", _STYLES, values)


def _title(modality: str) -> str:
    return modality_title(modality) if modality else "Modality not named"


def _figures(look: PileLook) -> list[tuple[str, ...]]:
    linked = [one.to_drop_N for one in look.against]
    patients = number(look.num_patients) if look.num_patients else "–"
    named: list[tuple[str, ...]] = [("Pairs", number(look.num_pairs)), ("Patients", patients)]
    named.append(("Different texts", number(look.boilerplate.num_distinct)))
    copies = look.copies.num_copies
    named.append(("Copies", number(copies), *(["wait"] if copies else ["good"])))
    if linked:
        num = int(np.logical_or.reduce(linked).sum())
        named.append(("Linked to evaluation", number(num), "bad" if num else "good"))
    named.append(("Concepts named", f"{number(len(look.concepts.concepts))} of {number(look.concepts.num_listed)}"))
    return named


def _count_rows(look: PileLook, column: str) -> tuple[list[tuple[str, ...]], int]:
    """Return the rows of the most frequent values, and how many others there are."""
    rows = [row for row in look.counts if row.column == column]
    first = rows[:_MOST_ROWS]
    titles = [_title(row.value) if column == "modality" else printable(row.value) or "(not named)" for row in first]
    cells = [
        (title, number(row.pairs), percent_of(row.pairs, look.num_pairs), number(row.patients) if row.patients else "–")
        for title, row in zip(titles, first, strict=True)
    ]
    return cells, len(rows) - len(first)


def _copies(look: PileLook) -> list[tuple[str, ...]]:
    copies = look.copies
    thing, alike = look.thing, int((copies.alike_patients_N & ~copies.across_patients_N).sum())
    rows = [(f"Show {look.a_thing} that another pair shows already", copies.num_copies)]
    rows += [(f"… {_WAYS[way] if thing != 'record' else _OF_RECORDS}", num) for way, num in copies.by_way.items()]
    rows += [
        (f"Share their {thing} with a pair that has another text", int(copies.other_text_N.sum())),
        ("Share it with a pair of another patient", int(copies.across_patients_N.sum())),
        *([("Look like another patient’s", alike)] if thing != "record" else []),
        ("Share it with a pair of another split", int(copies.across_splits_N.sum())),
        (f"Have {look.a_thing} that cannot be read", sum(copies.unread.values())),
    ]
    return [(name, number(num), percent_of(num, look.num_pairs)) for name, num in rows]


def _lengths(look: PileLook) -> list[tuple[str, ...]]:
    facts = look.to_dict()["lengths"]
    rows = [(capital(name), *map(number, facts[name].values())) for name in ("letters", "words")]
    if "tokens" in facts:
        rows.append(("Tokens of the pack", *map(number, facts["tokens"].values())))
    return rows


def _tails(look: PileLook) -> list[tuple[str, ...]]:
    named = (("Concepts that are affirmed", look.concepts.affirmed), ("Words", look.words))
    return [
        (
            name,
            number(len(tail.counts_K)),
            percent_of(round(1000 * tail.share_of_top), 1000),
            number(tail.num_rare),
            percent_of(round(1000 * tail.share_of_rare), 1000),
            figure(tail.gini, decimals=2),
        )
        for name, tail in named
    ]


def _ends(quantiles: tuple[float, ...] | None) -> str:
    if quantiles is None:
        return "–"
    low, middle, high = (figure(value, decimals=2) for value in quantiles)
    return f"{middle} ({low} to {high})"


def _groups(look: PileLook) -> list[tuple[str, str, list[tuple[Example, str, str]]]]:
    """Return examples by modality and end, the modality of most pairs first."""
    order = [row.value for row in look.counts if row.column == "modality"]
    groups = []
    for modality in order:
        for end, title in _ENDS.items():
            ones = [one for one in look.examples if (one.modality, one.end) == (modality, end)]
            cells = [
                (one, "" if one.image is None else _drawn(one.image), figure(one.cosine, decimals=2)) for one in ones
            ]
            if cells:
                groups.append((_title(modality), title, cells))
    return groups


def _drawn(image: bytes) -> str:
    return image_uri(image, "png" if image.startswith(_PNG) else "jpeg")


def _cosines_svg(modalities: Sequence[ModalityAlignment]) -> str:
    """Draw the cosines of own and of shuffled texts, a modality each."""
    columns = min(3, len(modalities))
    lines = -(-len(modalities) // columns)

    def draw(figure_: Any) -> None:
        axes = figure_.subplots(lines, columns, squeeze=False).ravel()
        for place, one in zip(axes, modalities, strict=False):
            for counts, colour, label in (
                (one.shuffled_counts, SECOND, "text of another patient"),
                (one.matched_counts, FIRST, "own text"),
            ):
                share = 100 * np.array(counts) / max(1, sum(counts))
                place.stairs(share, one.edges, color=colour, label=label, linewidth=1.6)
            dress(place, "% of pairs", "cosine")
            place.set_title(_title(one.modality), color=INK, fontsize=10, loc="left")
        for place in axes[len(modalities) :]:
            place.set_visible(False)
        axes[0].legend(frameon=False, labelcolor=INK, loc="upper left", fontsize=8)
        axes[0].set_ylim(top=1.35 * axes[0].get_ylim()[1])  # room for the legend

    return themed_svg((9.2, 2.6 * lines), draw)


def _tail_svg(look: PileLook) -> str:
    """Draw counts by rank, on two logarithmic axes: of concepts and of words."""

    def draw(figure_: Any) -> None:
        axes = figure_.subplots(1, 2)
        for place, tail, name, colour in (
            (axes[0], look.concepts.affirmed, "concept", FIRST),
            (axes[1], look.words, "word", SECOND),
        ):
            ranks, counts = _ranked(tail.counts_K)
            if len(ranks):
                place.loglog(ranks, counts, color=colour, linewidth=1.6, marker="." if len(ranks) < 60 else "")
                place.axhline(20, color=SOFT, linewidth=0.8, linestyle=":")
            dress(place, "pairs that affirm it" if name == "concept" else "times it stands", f"rank of the {name}")
            place.minorticks_off()

    return themed_svg((9.2, 3.2), draw)


def _ranked(counts_K: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ranks and counts, of many so few that a drawing stays small."""
    if not len(counts_K):
        return counts_K, counts_K
    ranks = np.unique(np.geomspace(1, len(counts_K), 300).round().astype(np.int64))
    return ranks, counts_K[ranks - 1]
