"""Thin pairs that are made of frequent things alone, looked at in four ways (ADR, stage 1).

"From Head to Tail" (Adaptive Data Calibration, 2025): words, concepts, pairs of concepts and forms of questions are
counted, an entity e of view k passes with probability tau_k / count_k(e), a view with its first entity that does, and a
pair is kept if more than `pass_num` views pass. With `reference: true` the walk is that of the published code:
entities in the order of the text, repeated words counted and drawn again. The medical default takes each patient as one
instance, entities once and sorted, and lets a view without entities pass with probability 0.5, so that a film with one
finding is not dropped for having no pair of findings.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from medclip.pairs.pile import Pile
from medclip.pairs.selection.balance import Mentions, Polarity, concept_mentions, gini
from medclip.pairs.selection.metadata_files import MetadataSettings, read_metadata
from medclip.pairs.selection.steps import Context, Verdict
from medclip.text.checks.matching import match_batches
from medclip.text.checks.metadata import left_out_notes, normalised
from medclip.wording import count

if TYPE_CHECKING:
    from numpy.typing import NDArray

View = Literal["token", "object", "co_occurrence", "interrogation"]
Instance = Mapping[str, Sequence[str]]
"""Entities by view."""
EMPTY_PASSES = 0.5
"""Probability with which a view without entities passes in the medical way."""
_MOST_NAMED = 20
_SMALL_WORDS = frozenset(
    [
        *("the", "and", "for", "with", "are", "was", "were", "has", "have", "had", "there", "this", "that", "these"),
        *("which", "from", "not", "but", "its", "been", "being", "than", "into", "out", "any", "all", "can", "may"),
    ]
)
_QUESTIONS = {
    "how many": r"\bhow many\b|\bnumber of\b",
    "how large": r"\bhow (?:large|big|long|wide|deep)\b|\bwhat (?:is the )?(?:size|diameter)\b",
    "how severe": r"\bhow (?:severe|bad|advanced)\b|\b(?:what|which) (?:is the )?(?:severity|grade|stage|degree)\b",
    "where": r"\bwhere\b|\b(?:what|which) (?:is the )?(?:side|location|lobe|region|quadrant)\b",
    "is there": r"(?:^|[.?!,;]\s+|\b(?:and|or) )(?:(?:is|are|was|were) there|(?:does|do|is|are) (?:the|this|these))\b",
    "which image": r"\b(?:what|which) (?:\w+ )?(?:modality|plane|view|imaging|sequence|kind of image)\b",
    "why": r"\bwhy\b|\bwhat (?:is the )?cause\b",
    "what": r"\bwhat\b|\bwhich\b",
}
"""Forms of questions, of which a text has those that it names; the last only where it has no other."""


class RebalanceSettings(MetadataSettings):
    """How a pile is rebalanced."""

    views: tuple[View, ...] = Field(("object", "co_occurrence", "token"), min_length=1)
    pass_num: int = Field(1, ge=0)
    """More views than this must pass."""
    alpha: float = Field(1.0, ge=0, le=1)
    """Share of the passing ones that is kept."""
    coverage: float = Field(0.9, gt=0, le=1)
    """Share of mentions that entities of the head have; tau is the count of the last of them."""
    thresholds: dict[View, float] = Field(default_factory=dict)
    """tau of views for which it is not to be chosen."""
    polarity: Polarity = "split"
    """How concepts are told apart, as `balance` does."""
    reference: bool = False


def threshold(counts: Mapping[str, int], coverage: float) -> float:
    """Return the count of the entity at which the most frequent ones have `coverage` of all mentions; 0 of none.

    Example:
        >>> threshold({"a": 80, "b": 10, "c": 6, "d": 4}, 0.9)
        10.0
    """
    descending = np.sort(np.array(list(counts.values()), np.int64))[::-1]
    if not len(descending):
        return 0.0
    # What is covered is compared in whole numbers: 0.9 of a sum is no sum of counts in float.
    covered = np.cumsum(descending)
    return float(descending[np.searchsorted(covered, round(coverage * int(covered[-1]), 6))])


def entity_counts(instances: Iterable[Instance], view: str) -> Counter[str]:
    """Count the mentions of each entity of a view: one that stands twice in an instance counts twice."""
    return Counter(entity for instance in instances for entity in instance.get(view, ()))


def probabilities(counts: Mapping[str, int], tau: float) -> dict[str, float]:
    """Compute the probability of each entity, which may be above 1: always.

    Example:
        >>> probabilities({"opacity": 40, "stent": 5}, 10)
        {'opacity': 0.25, 'stent': 2.0}
    """
    return {entity: tau / n for entity, n in counts.items()}


def pairs_of(entities: Iterable[str]) -> list[str]:
    """Return all pairs of an instance's entities, each sorted and joined by a comma.

    Example:
        >>> pairs_of(["b", "a", "c"]), pairs_of(["a"])
        (['a,b', 'b,c', 'a,c'], [])
    """
    return [",".join(sorted(pair)) for pair in combinations(dict.fromkeys(entities), 2)]


def draw(
    instances: Sequence[Instance],
    p_of: Mapping[str, Mapping[str, float]],
    *,
    pass_num: int,
    alpha: float,
    uniform: Callable[[], float],
    empty_passes: float = 0.0,
) -> NDArray[np.bool_]:
    """Draw which instances are kept.

    Args:
        instances: N instances.
        p_of: Probabilities of entities by view, in the order in which views are walked.
        pass_num: Number of views that is not enough.
        alpha: Share of passing instances that is kept; it is drawn only for those that pass.
        uniform: Source of draws from 0 to 1.
        empty_passes: Probability with which a view without entities passes; nothing is drawn for it where it is 0.
    """
    kept_N = np.zeros(len(instances), bool)
    for n, instance in enumerate(instances):
        passes = 0
        for view, p in p_of.items():
            entities = instance.get(view, ())
            if entities:
                passes += any(uniform() < p.get(entity, 0.0) for entity in entities)
            elif empty_passes:
                passes += uniform() < empty_passes
        kept_N[n] = passes > pass_num and uniform() < alpha
    return kept_N


def keep_probability(
    instance: Instance,
    p_of: Mapping[str, Mapping[str, float]],
    *,
    pass_num: int,
    alpha: float,
    empty_passes: float = 0.0,
) -> float:
    """Compute the probability with which an instance is kept; arguments as of `draw`.

    Example:
        >>> p_of = {"token": {"opacity": 0.25}, "object": {"stent": 2.0}}
        >>> keep_probability({"token": ["opacity"], "object": ["stent"]}, p_of, pass_num=1, alpha=0.8)
        0.2
    """
    num_passed = np.array([1.0])  # probabilities of 0, 1, ... views that pass
    for view, p in p_of.items():
        entities = instance.get(view, ())
        misses = np.prod([1 - min(1.0, p.get(entity, 0.0)) for entity in entities]) if entities else 1 - empty_passes
        num_passed = np.convolve(num_passed, [misses, 1 - misses])
    return float(alpha * num_passed[pass_num + 1 :].sum())


def tokens_of(text: str) -> list[str]:
    """Return the words of a text of three letters and more, in lower case, function words left out; repeats stay."""
    return [w for w in normalised(text).lower().split() if len(w) > 2 and w.isalpha() and w not in _SMALL_WORDS]


def questions_of(text: str) -> list[str]:
    """Return the forms of questions in a text that asks.

    Example:
        >>> questions_of("Where is the mass, and how many are there?"), questions_of("A mass.")
        (['how many', 'where'], [])
    """
    if "?" not in text:
        return []
    lowered = text.lower()
    forms = [form for form, pattern in _QUESTIONS.items() if re.search(pattern, lowered)]
    return [form for form in forms if form != "what" or len(forms) == 1]


@dataclass(frozen=True, eq=False)
class Views:
    """Entities of M rows in several views, and how rare they are."""

    of_rows: Sequence[Instance]
    """Of each row."""
    instances: Sequence[Instance]
    """Of each patient; in the way of the reference of each row."""
    unit_M: NDArray[np.intp]
    """Number of the instance of each row."""
    counts_of: Mapping[str, Counter[str]]
    taus: Mapping[str, float]
    p_of: Mapping[str, Mapping[str, float]]
    about: Mapping[str, object]
    """What a report says of the metadata."""


def read_views(pile: Pile, rows_M: NDArray[np.int64], settings: RebalanceSettings, context: Context) -> Views:
    """Read the entities of rows, and compute the probability of each.

    Raises:
        MedclipError: Refusals of `read_metadata`.
    """
    reference = settings.reference
    metadata = read_metadata(settings.metadata, context.folder, reference=reference)
    polarity: Polarity = "all" if reference else settings.polarity
    texts = pile.words(rows_M)
    batches = match_batches(texts, metadata, polarity=polarity != "all", progress=context.progress)
    of_rows = _instances(texts, concept_mentions(batches, metadata, polarity), settings.views)
    unit_M = np.arange(len(rows_M)) if reference else _patients(pile.cells("patient", rows_M))
    instances = of_rows if reference else _united(of_rows, unit_M)
    counts_of = {view: entity_counts(instances, view) for view in settings.views}
    stated: Mapping[str, float] = {**settings.thresholds}
    taus = {view: stated.get(view, threshold(counts, settings.coverage)) for view, counts in counts_of.items()}
    p_of = {view: probabilities(counts, taus[view]) for view, counts in counts_of.items()}
    return Views(of_rows, instances, unit_M, counts_of, taus, p_of, metadata.about())


def rebalance(
    pile: Pile, rows_M: NDArray[np.int64], settings: RebalanceSettings, context: Context, step: int
) -> Verdict:
    """Keep what more than `pass_num` views let pass.

    Returns:
        Verdict whose value is the probability with which a row is kept.

    Raises:
        MedclipError: Refusals of `read_metadata`.
    """
    reference = settings.reference
    read = read_views(pile, rows_M, settings, context)
    instances, unit_M, p_of, counts_of = read.instances, read.unit_M, read.p_of, read.counts_of
    views: dict[str, Any] = {}
    for view, counts in counts_of.items():
        tau = read.taus[view]
        empty = sum(not instance.get(view) for instance in instances)
        views[view] = {"tau": tau, "entities": len(counts), "instances_without": empty}
    rule = {"pass_num": settings.pass_num, "alpha": settings.alpha, "empty_passes": 0.0 if reference else EMPTY_PASSES}
    rng = context.rng("rebalance", step)
    kept_N = draw(instances, p_of, uniform=rng.random, **rule)
    value_N = np.array([keep_probability(instance, p_of, **rule) for instance in instances], np.float64)
    for view, counts in counts_of.items():
        after = entity_counts((i for i, kept in zip(instances, kept_N, strict=True) if kept), view)
        views[view] |= _before_and_after(counts, after)
    expected = float(value_N[unit_M].sum())
    facts = {**read.about, "views": views, "instances": len(instances), "expected": expected}
    notes = left_out_notes(read.about) + _notes(views, settings, len(instances))
    return Verdict(kept_N[unit_M], value_N[unit_M], facts=facts, notes=notes)


def _notes(views: Mapping[str, Any], settings: RebalanceSettings, num: int) -> tuple[str, ...]:
    notes = [
        f"No text has an entity of the view {view!r}: nothing is known of it."
        for view, facts in views.items()
        if num and facts["instances_without"] == num
    ]
    if settings.pass_num >= len(settings.views):
        notes.append(
            f"Nothing can pass: {count(len(settings.views), 'view')} cannot be more than pass_num, {settings.pass_num}."
        )
    return tuple(notes)


def _patients(patients: Sequence[str]) -> NDArray[np.intp]:
    """Return the number of the patient of each row; one of its own for each row without."""
    numbers: dict[str | int, int] = {}
    return np.array([numbers.setdefault(patient or i, len(numbers)) for i, patient in enumerate(patients)], np.intp)


def _instances(texts: Sequence[str], mentions: Mentions, views: Sequence[str]) -> list[dict[str, list[str]]]:
    objects: list[list[str]] = [[] for _ in texts]
    for concept, text in mentions.index_M2.tolist():
        objects[text].append(mentions.names[concept])
    read: dict[str, Callable[[str, list[str]], list[str]]] = {
        "token": lambda text, _: tokens_of(text),
        "object": lambda _, entities: entities,
        "co_occurrence": lambda _, entities: pairs_of(entities),
        "interrogation": lambda text, _: questions_of(text),
    }
    return [{view: read[view](text, entities) for view in views} for text, entities in zip(texts, objects, strict=True)]


def _united(of_rows: Sequence[Instance], unit_M: NDArray[np.intp]) -> list[dict[str, list[str]]]:
    """Make one instance of the rows of each patient: every entity once, and sorted."""
    united: list[dict[str, set[str]]] = [{} for _ in range(int(unit_M.max()) + 1 if len(unit_M) else 0)]
    for unit, instance in zip(unit_M.tolist(), of_rows, strict=True):
        for view, entities in instance.items():
            united[unit].setdefault(view, set()).update(entities)
    return [{view: sorted(entities) for view, entities in instance.items()} for instance in united]


def _before_and_after(before: Counter[str], after: Counter[str]) -> dict[str, Any]:
    """Return counts of a view before and after, as a page draws them: the most and the least frequent entities."""
    order = sorted(before, key=lambda entity: (-before[entity], entity))
    bars = [{"entity": entity, "before": before[entity], "after": after[entity]} for entity in order]
    counts = (np.array([counter[entity] for entity in order], np.int64) for counter in (before, after))
    gini_before, gini_after = map(gini, counts)
    return {
        "gini_before": gini_before,
        "gini_after": gini_after,
        "top": bars[:_MOST_NAMED],
        "tail": bars[max(_MOST_NAMED, len(bars) - _MOST_NAMED) :],
    }
