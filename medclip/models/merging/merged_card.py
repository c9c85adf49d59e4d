"""The card of a merged pack: what it came from, whose terms hold, and that nothing of it was measured before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medclip.models.packs.card import (
    ANCESTORS,
    MERGED_FROM,
    Card,
    Source,
    SplitFigures,
    TaskCard,
    training_hashes,
    training_patients,
)
from medclip.models.packs.card_citations import united
from medclip.models.packs.licences import licence_files
from medclip.models.packs.manifest import pack_digest
from medclip.version import __version__
from medclip.wording import list_of

if TYPE_CHECKING:
    from medclip.models.merging.ingredients import Ingredient

TRAIN_HASHES, PATIENT_HASHES = "train_hashes.txt", "patient_hashes.txt"
UNMEASURED = "Not measured after merging."
_UNSTATED = "terms that were not stated"
_AND, _ALL = " AND ", "all of these: "
_TASK_WORDS = ("title", "class_titles")
"""What is said of a task beside its figures, and stays."""


def merged_card(
    ingredients: Sequence[Ingredient],
    *,
    name: str,
    version: str,
    how: str,
    facts: Mapping[str, Any],
    line: Sequence[str],
    notes: Sequence[str] = (),
    under: Sequence[Ingredient] = (),
) -> Card:
    """Write the card of a merged pack.

    Figures, calibrations and thresholds of the packs are left out: they are of other weights.

    Args:
        ingredients: The packs whose training is in it; of one that was merged itself, its own are named.
        name: Name of the merged pack.
        version: Version of the merged pack.
        how: Manner of merging in a few words: "a uniform soup".
        facts: Facts for `created_from`: method, its settings, and what it needs to go on.
        line: Heads of the hashes of weights that all of them go back to.
        notes: More limits, first of all.
        under: The base that the packs are merged on, where it is none of them: its terms and data are in it, too.
    """
    cards = [one.card for one in ingredients]
    terms_of = [one.card for one in (*ingredients, *under)]  # packs that state their start list its data themselves
    names = [one.name for one in ingredients]
    uses = list(dict.fromkeys(card.intended_use for card in cards if card.intended_use))
    terms_files = sorted(licence_files(one.path for one in (*ingredients, *under)))
    what = f"{how[0].upper()}{how[1:]} of {list_of(names)}"
    others = ": its weights are none of theirs" if len(names) > 1 else " alone"
    limits = [
        f"{what}{others}. {UNMEASURED}",
        *notes,
        *_where_terms_lie(terms_files),
        "It has no guard for unknown images: those of the packs are of other features.",
        *(
            f"{one.name} does not list its training files: the list in this pack lacks them."
            for one in (*ingredients, *under)
            if one.card.train_hashes_file is None
        ),
        *(limit for card in cards for limit in card.limits),
    ]
    if len({card.licence.strip() for card in terms_of}) > 1:
        limits.insert(1, "The terms of all packs hold together; whether they can, nobody has checked.")
    return Card(
        name=name,
        version=version,
        summary=f"{what}.",
        intended_use=" ".join(uses),
        modalities=tuple(sorted({m for card in cards for m in card.modalities})),
        tasks=merged_tasks(cards),
        data=tuple(_sources(cards if all(one.states_start for one in ingredients) else terms_of)),
        citations=united(
            work.of_ancestor(one.name, version=one.card.version, digest=pack_digest(one.path))
            for one in (*ingredients, *under)
            for work in one.card.citations
        ),
        licence=united_licence(terms_of),
        limits=tuple(dict.fromkeys(limits)),
        created_from={
            MERGED_FROM: [
                part for one in ingredients for part in one.card.created_from.get(MERGED_FROM, [one.reference()])
            ],
            **facts,
            ANCESTORS: list(line),
            "medclip": __version__,
        },
        train_hashes_file=TRAIN_HASHES,
        patient_hashes_file=PATIENT_HASHES,
    )


def with_figures(card: Card, figures: SplitFigures) -> Card:
    """Return the card of a merged pack with what was measured after merging, which it no longer calls unmeasured."""
    tasks = {
        name: task.model_copy(update={"note": task.note.replace(UNMEASURED, "").strip()})
        if name in figures.figures
        else task
        for name, task in card.tasks.items()
    }
    limits = (card.limits[0].replace(f" {UNMEASURED}", ""), *card.limits[1:])
    return card.model_copy(update={"held_out": figures, "tasks": tasks, "limits": limits})


def merged_tasks(cards: Sequence[Card]) -> dict[str, TaskCard]:
    """Return the tasks of all cards, each with all its classes and no figure.

    A task stays one of the modalities and kinds of units that any of the cards says it was measured on: nothing else
    was ever learned for it. A card that does not say adds none.
    """
    tasks: dict[str, TaskCard] = {}
    for card in cards:
        for name, task in card.tasks.items():
            before = tasks.get(name)
            classes = dict.fromkeys((*(before.classes if before is not None else ()), *task.classes))
            words: dict[str, Any] = {}
            for one in (before, task):
                for key, value in ({} if one is None else one.model_extra or {}).items():
                    if key in _TASK_WORDS:
                        words[key] = {**words.get(key, {}), **value} if isinstance(value, dict) else value
            asked = {
                part: tuple(sorted({*getattr(before, part, ()), *getattr(task, part)}))
                for part in ("kinds", "modalities")
            }
            entry = {"classes": tuple(classes), "note": UNMEASURED, **words, **asked}
            tasks[name] = TaskCard.model_validate(entry)
    return tasks


def _where_terms_lie(files: Sequence[str]) -> tuple[str, ...]:
    """Write under which names the terms of packs lie in full beside the card; nothing where they have no text."""
    return (f"The terms of its packs lie in full in {list_of(files)}.",) if files else ()


def terms(cards: Sequence[Card]) -> tuple[str, ...]:
    """Return the different licences of cards, in their order; of what was merged itself each one."""
    parts: list[str] = []
    for licence in (card.licence.strip() or _UNSTATED for card in cards):
        if licence.startswith(_ALL):
            parts += licence.removeprefix(_ALL).split("; ")
        else:
            parts += [licence] if " " in licence.replace(_AND, "") else licence.split(_AND)
    return tuple(dict.fromkeys(parts))


def united_licence(cards: Sequence[Card]) -> str:
    """Return a licence under which the terms of all cards hold; the strictest of them is among these.

    Example:
        >>> united_licence([Card(name="a", licence="CC-BY-4.0"), Card(name="b", licence="CC-BY-NC-4.0")])
        'CC-BY-4.0 AND CC-BY-NC-4.0'
        >>> united_licence([Card(name="a", licence="research only"), Card(name="b")])
        'all of these: research only; terms that were not stated'
    """
    known = terms(cards)
    if known == (_UNSTATED,):
        return ""
    if len(known) == 1:
        return known[0]
    return _AND.join(known) if all(" " not in one for one in known) else f"{_ALL}{'; '.join(known)}"


def hash_lists(ingredients: Sequence[Ingredient]) -> dict[str, bytes]:
    """Put the lists of training files and patients of packs together, as files of a pack."""
    lists = {
        TRAIN_HASHES: [training_hashes(one.path, one.card) for one in ingredients],
        PATIENT_HASHES: [training_patients(one.path, one.card) for one in ingredients],
    }
    united = {name: frozenset().union(*(one for one in several if one)) for name, several in lists.items()}
    return {name: "".join(f"{line}\n" for line in sorted(lines)).encode() for name, lines in united.items()}


def _sources(cards: Sequence[Card]) -> list[Source]:
    """Return the sources of all cards, equal ones once."""
    sources: list[Source] = []
    for card in cards:
        sources += [source for source in card.data if source not in sources]
    return sources
