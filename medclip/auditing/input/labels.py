"""The questions of an audit, row by row: scores checked, truths understood, what has only one answer left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, softmax

from medclip.auditing.input.joined_tables import Source
from medclip.auditing.input.label_values import (
    NO_FINDING,
    Truth,
    policy_notes,
    read_class,
    read_list,
    read_times,
    read_truth,
)
from medclip.auditing.input.match_columns import Pair
from medclip.auditing.input.options import ReadOptions
from medclip.errors import MedclipError, Reason
from medclip.files.tables.table import plain_name
from medclip.shards.writing.exam_groups import joined_class
from medclip.statistics.cohort import Label
from medclip.statistics.metrics.calibration import has_logit, logits
from medclip.text.vocabulary.load import load_task, task_names
from medclip.wording import count

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SLACK = 1e-6
"""What a probability may be off by rounding; such ones are set to 0 or 1."""


def make_labels(pairs: Sequence[Pair], source: Source, options: ReadOptions) -> tuple[tuple[Label, ...], list[str]]:
    """Read score and truth of every question.

    Returns:
        The labels that have both answers (for times to events: an event), and notes.

    Raises:
        MedclipError: TABLE_INVALID for scores or truths that are not understood, and where no label is left.
    """
    time_N = None if options.time is None else _times(source, options.time)
    scores, notes = _scores(pairs, source, options)
    truths = [_truth(pair, source, options) for pair in pairs]
    labels: list[Label] = []
    single: list[str] = []
    of_units = [_of_units(pair, truth, source) for pair, truth in zip(pairs, truths, strict=True)]
    decided = _one_class([truth_N for truth_N, _ in of_units], pairs) if source.several else [t for t, _ in of_units]
    for pair, truth_N, (_, notes_of_one) in zip(pairs, decided, of_units, strict=True):
        notes += notes_of_one
        if time_N is not None:
            truth_N = np.where(np.isnan(time_N), np.nan, truth_N)
        kind = "probabilities" if pair.group and options.scores == "logits" else options.scores
        score_N, notes_of_one = checked_scores(scores[pair.score], pair.name, kind, source.scores.where)
        notes += notes_of_one
        healthy = plain_name(pair.name) in {*NO_FINDING, *(plain_name(n) for n in options.no_finding)}
        label = Label(pair.name, score_N, truth_N, options.scores != "any", no_finding=healthy, time_N=time_N)
        valid = truth_N[label.valid_N]
        if len(valid) and bool((valid == score_N[label.valid_N]).all()):
            notes.append(f"{pair.name}: CAUTION: the scores equal the truths; is {pair.score!r} the column of scores?")
        if len(valid) and valid.max() > 0 and (valid.min() == 0 or time_N is not None):
            labels.append(label)
        else:
            single.append(pair.name)
            answer = "positive" if len(valid) and valid[0] else "negative"
            notes.append(f"{pair.name} is left out: of {len(valid):,} rows with score and truth all are {answer}.")
    if not labels:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"no label has both positives and negatives among the rows that have a score: {', '.join(single[:10])}.",
            where=source.labels.where,
            hint="Is it the right column, and the right part of the table (--where)?",
        )
    return tuple(labels), [*policy_notes(truths, options), *dict.fromkeys(notes)]


def _of_units(pair: Pair, truth: Truth, source: Source) -> tuple[NDArray[np.float64], list[str]]:
    """Return one truth for each unit of the cohort, and what was decided for it."""
    notes = []
    if truth.num_other:
        notes.append(f"{pair.group}: {count(truth.num_other, 'row')} of a class without a score, which do not count.")
    if not source.several:
        return truth.truth_N, notes
    truth_N, differing = any_positive(truth.truth_N, source.unit_M, source.num_units)
    if differing:
        notes.append(
            f"{pair.name}: the files of {count(differing, 'study', 'studies')} disagree; a study is positive if any "
            "of its files is."
        )
    return truth_N, notes


def _one_class(truths: Sequence[NDArray[np.float64]], pairs: Sequence[Pair]) -> list[NDArray[np.float64]]:
    """Decide the class of units whose rows are of several, as shards do: of a breast, an exam, a study.

    An exam with a normal breast and one with a cancer is no normal exam. What is left open counts for no class.
    """
    taken = [truth_N.copy() for truth_N in truths]
    groups: dict[tuple[str, str], list[int]] = {}
    for n, pair in enumerate(pairs):
        task = pair.score.partition(":")[0]
        if pair.kind == "class" and task in task_names() and load_task(task).level != "image":
            groups.setdefault((pair.group, task), []).append(n)
    for (_, task), numbers in groups.items():
        names = [pairs[n].score.partition(":")[2] for n in numbers]
        is_of_NC = np.stack([truths[n] == 1 for n in numbers], axis=1)
        for unit in np.flatnonzero(is_of_NC.sum(axis=1) > 1).tolist():
            joined = joined_class([names[c] for c in np.flatnonzero(is_of_NC[unit])], None, task)
            for name, n in zip(names, numbers, strict=True):
                taken[n][unit] = float(name == joined) if joined in names else np.nan
    return taken


def _scores(
    pairs: Sequence[Pair], source: Source, options: ReadOptions
) -> tuple[dict[str, NDArray[np.float64]], list[str]]:
    scores = {p.score: source.scores.score_U(p.score)[source.score_unit_N] for p in pairs}
    notes = []
    if options.scores == "logits":
        for group in sorted({p.group for p in pairs if p.group}):
            inside = [p.score for p in pairs if p.group == group]
            chances_NC = softmax(np.stack([scores[name] for name in inside], axis=1), axis=1)
            scores |= dict(zip(inside, chances_NC.T, strict=True))
            notes.append(f"{group}: logits turned into probabilities over the {len(inside)} classes that occur.")
    return scores, notes


def unmatched_scores(pairs: Sequence[Pair], source: Source, options: ReadOptions) -> dict[str, NDArray[np.float64]]:
    """Return for each label the scores of the units that have no row of labels, which nothing else is known of."""
    scores, _ = _scores(pairs, replace(source, score_unit_N=source.unmatched_units), options)
    is_logit = {pair.name: options.scores == "logits" and not pair.group for pair in pairs}
    return {pair.name: expit(scores[pair.score]) if is_logit[pair.name] else scores[pair.score] for pair in pairs}


def _truth(pair: Pair, source: Source, options: ReadOptions) -> Truth:
    cells = source.label_cells(pair.column)
    if pair.kind == "list":
        return read_list(cells, pair.words[0], options)
    if pair.kind == "class":
        return read_class(cells, pair.words, pair.among)
    return read_truth(cells, pair.column, options, source.labels.where)


def _times(source: Source, name: str) -> NDArray[np.float64]:
    column = source.labels.need(name, "of times")
    if source.several and source.text(column)[1]:
        raise MedclipError(
            Reason.TABLE_INVALID, "files of one study have different times to the event.", where=source.labels.where
        )
    first_N = source.label_row_M[source.first_row_N]
    return read_times(source.labels.numbers(column, "a time")[first_N], column, source.labels.where)


def any_positive(
    truth_M: NDArray[np.float64], unit_M: NDArray[np.intp], num_units: int
) -> tuple[NDArray[np.float64], int]:
    """Return each unit 1 if any of its rows is 1, else 0 if any is 0, else NaN.

    Returns:
        The truth of U units, and for how many of them rows disagreed.
    """
    known_M = ~np.isnan(truth_M)
    high_U = np.full(num_units, -1.0)
    low_U = np.full(num_units, 2.0)
    np.maximum.at(high_U, unit_M[known_M], truth_M[known_M])
    np.minimum.at(low_U, unit_M[known_M], truth_M[known_M])
    return np.where(high_U < 0, np.nan, high_U), int((high_U > low_U).sum())


def checked_scores(
    score_N: NDArray[np.float64], name: str, kind: str, where: str
) -> tuple[NDArray[np.float64], list[str]]:
    """Check the scores of one label.

    Args:
        score_N: Scores as the table has them; NaN where a row has none.
        name: Name of the label.
        kind: Meaning of the scores: "probabilities", "logits" (of one class against the rest) or "any".
        where: Name of the table, for messages.

    Returns:
        Probabilities, or the scores as they are where `kind` is "any"; and notes.

    Raises:
        MedclipError: TABLE_INVALID for infinite scores, for probabilities outside 0 to 1, and where no row has a score.
    """
    known_N = ~np.isnan(score_N)
    if not known_N.any():
        raise MedclipError(Reason.TABLE_INVALID, f"no row has a score of {name!r}.", where=where)
    infinite = int(np.isinf(score_N).sum())
    if infinite:
        raise MedclipError(Reason.TABLE_INVALID, f"{count(infinite, 'score')} of {name!r} are infinite.", where=where)
    if kind == "logits":
        score_N = expit(score_N)
    if kind == "probabilities":
        low, high = int((score_N < -_SLACK).sum()), int((score_N > 1 + _SLACK).sum())
        if low or high:
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"scores of {name!r} are no probabilities: {low:,} are below 0 and {high:,} above 1, of "
                f"{int(known_N.sum()):,}.",
                where=where,
                hint=_advice(score_N[known_N]),
            )
        score_N = np.clip(score_N, 0.0, 1.0)
    notes = []
    if not known_N.all():
        notes.append(f"{name}: {count(int((~known_N).sum()), 'row')} without a score, which do not count for it.")
    num_ends = 0 if kind == "any" else int((~has_logit(logits(score_N[known_N]))).sum())
    if num_ends:
        notes.append(
            f"{name}: {count(num_ends, 'score is', 'scores are')} 0 or 1, which has no logit: such rows do not count "
            "for calibration slope and intercept."
        )
    first = score_N[known_N][0]
    if int(known_N.sum()) > 1 and bool((score_N[known_N] == first).all()):
        notes.append(f"{name}: all {int(known_N.sum()):,} scores are equal ({first:.4g}); they tell nobody apart.")
    return score_N, notes


def _advice(score_N: NDArray[np.float64]) -> str:
    if score_N.min() >= 0 and score_N.max() <= 100 and score_N.max() > 10:
        return (
            "Are they per cent? Divide them by 100. Else say --scores-are logits, or --scores-are any for ranks only."
        )
    return "Say --scores-are logits, or --scores-are any where higher only means more likely."
