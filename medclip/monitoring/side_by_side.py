"""One pack beside another on the same studies: what an upgrade changes, before it is trusted.

Studies are paired by key, and questions by task and class. No labels are needed, so nothing here says which of two
answers is right: it says where somebody has to look.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.checks.embeddings.vectors import whole_patients
from medclip.errors import MedclipError, Reason
from medclip.monitoring.changes import MOST_ROWS
from medclip.monitoring.read_results import Question, Watched
from medclip.statistics.resampling.resampled import change
from medclip.statistics.resampling.standard_errors import effective_patients
from medclip.statistics.resampling.sums import means
from medclip.statistics.resampling.weights import draw_weights
from medclip.text.vocabulary.task_kinds import one_answer_kinds


@dataclass(frozen=True)
class Compared:
    """One question, asked of the same studies by two packs."""

    task: str
    name: str
    """Of the class."""
    num_studies: int
    num_patients: int
    before: float
    """Mean probability by the pack of `compare`."""
    now: float
    difference: float
    low: float
    high: float
    p: float
    largest: float
    """Largest absolute difference of a study."""
    rank_correlation: float
    """Spearman's; NaN where one of the packs gives all studies the same score."""
    num_to_yes: int
    """Studies whose decision became yes: at the threshold, or this class the likeliest of its task."""
    num_to_no: int


@dataclass(frozen=True)
class ChangedStudy:
    """One study and question whose probability differs."""

    study: str
    task: str
    class_: str
    before: float
    now: float
    difference: float
    decision_before: int
    """1 for yes."""
    decision_now: int


def side_by_side(
    watched: Watched, against: Watched, *, threshold: float = 0.5, num_resamples: int = 2000, seed: int = 0
) -> tuple[list[Compared], list[ChangedStudy], tuple[int, int, int]]:
    """Compare two sets of results on the studies that both have.

    Returns:
        Each question; the studies by the size of their change, the largest first; and how many studies both have, only
        the new results, and only the old ones.

    Raises:
        MedclipError: NOTHING_TO_DO where they share no study and question.
    """
    old = {(question.task, question.name): question for question in against.questions}
    pairs = [(question, old[key]) for question in watched.questions if (key := (question.task, question.name)) in old]
    paired = [_paired(now, before) for now, before in pairs]
    if not any(len(places) for places, _ in paired):
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            "the results share no study that was asked the same question.",
            hint="Score the same files with both packs, the same tasks and the same identity key.",
        )
    likeliest = (_likeliest(watched.questions), _likeliest(against.questions))
    compared, studies = [], []
    for (now, before), (places, others) in zip(pairs, paired, strict=True):
        if not len(places):
            continue
        decisions = [
            _decisions(question, rows, of_tasks, threshold)
            for question, rows, of_tasks in ((before, others, likeliest[1]), (now, places, likeliest[0]))
        ]
        compared.append(_compared(now, before, places, others, decisions, num_resamples, seed))
        studies += _studies(now, before, places, others, decisions)
    studies.sort(key=lambda row: (-abs(row.difference), row.study, row.task, row.class_))
    sets = [{study for q in one.questions for study in q.studies_N} for one in (watched, against)]
    return compared, studies, (len(sets[0] & sets[1]), len(sets[0] - sets[1]), len(sets[1] - sets[0]))


def _paired(now: Question, before: Question) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of the studies that both have, in one order."""
    place = {study: row for row, study in enumerate(before.studies_N)}
    rows = [(row, place[study]) for row, study in enumerate(now.studies_N) if study in place]
    first, second = (np.array([pair[side] for pair in rows], np.int64) for side in (0, 1))
    return first, second


def _likeliest(questions: Sequence[Question]) -> dict[tuple[str, str], str]:
    """Return the likeliest class of each study and task with one answer."""
    best: dict[tuple[str, str], tuple[float, str]] = {}
    for question in questions:
        if question.kind not in one_answer_kinds():
            continue
        for study, value in zip(question.studies_N, question.probability_N.tolist(), strict=True):
            key = (question.task, study)
            if key not in best or value > best[key][0]:
                best[key] = (value, question.name)
    return {key: name for key, (_, name) in best.items()}


def _decisions(
    question: Question, rows: NDArray[np.int64], likeliest: dict[tuple[str, str], str], threshold: float
) -> NDArray[np.bool_]:
    if question.kind not in one_answer_kinds():
        return question.probability_N[rows] >= threshold
    return np.array([likeliest[question.task, s] == question.name for s in question.studies_N[rows]], bool)


def _compared(
    now: Question,
    before: Question,
    places: NDArray[np.int64],
    others: NDArray[np.int64],
    decisions: Sequence[NDArray[np.bool_]],
    num_resamples: int,
    seed: int,
) -> Compared:
    from scipy.stats import rankdata

    a, b = before.probability_N[others], now.probability_N[places]
    patients = np.unique(now.patients_N[places], return_inverse=True)[1]
    rows = whole_patients(patients, MOST_ROWS, seed)
    drawn = np.unique(patients[rows], return_inverse=True)[1]
    weights = draw_weights(int(drawn.max()) + 1, num_resamples, seed=seed)
    _, drawn_1B = means(drawn, weights, [(np.ones(len(rows), bool), (b - a)[rows])])
    tested = change(float(np.mean(b - a)), drawn_1B[0], effective_patients(drawn))
    varies = len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0
    rank = float(np.corrcoef(rankdata(a), rankdata(b))[0, 1]) if varies else math.nan
    yes_before, yes_now = decisions
    return Compared(
        now.task,
        now.name,
        len(a),
        int(patients.max()) + 1,
        float(a.mean()),
        float(b.mean()),
        tested.value,
        tested.low,
        tested.high,
        tested.p,
        float(np.abs(b - a).max()),
        rank,
        int((yes_now & ~yes_before).sum()),
        int((yes_before & ~yes_now).sum()),
    )


def _studies(
    now: Question,
    before: Question,
    places: NDArray[np.int64],
    others: NDArray[np.int64],
    decisions: Sequence[NDArray[np.bool_]],
) -> Iterator[ChangedStudy]:
    a, b = before.probability_N[others].tolist(), now.probability_N[places].tolist()
    yes = (decisions[0].astype(int).tolist(), decisions[1].astype(int).tolist())
    for study, old, new, yes_before, yes_now in zip(now.studies_N[places], a, b, *yes, strict=True):
        if old != new:
            yield ChangedStudy(str(study), now.task, now.name, old, new, new - old, yes_before, yes_now)
