"""The stress test of an audit: the pack shown the same images under corruptions, by group.

At most so many images of each group are stressed, chosen by a hash of their names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.checks.stress.image_forms import MOST as PATCH_IMAGES
from medclip.auditing.checks.stress.image_forms import SHUFFLED, SPOILT, TEMPERATURES, Patches, Variants
from medclip.auditing.checks.stress.rescore import prompt_scores
from medclip.auditing.checks.stress.shifts import (
    DISTANCE,
    MAX_LOGIT,
    SHUFFLE,
    Condition,
    Row,
    groups,
    num_steps,
    patch_rows,
    shift_rows,
    strangeness_rows,
    strangeness_scores,
)
from medclip.auditing.checks.table import CheckRows
from medclip.auditing.input.read import rows_of
from medclip.auditing.options import Stress
from medclip.errors import MedclipError, Reason
from medclip.imaging.corruptions import REFERENCE_PX, Corruption, corruptions_of
from medclip.sample import Modality, spoken
from medclip.statistics.cohort import ALL, Cohort, Label
from medclip.wording import by_reason, count, list_of, number

if TYPE_CHECKING:
    from medclip.auditing.checks.evidence import Evidence
    from medclip.auditing.checks.stress.rescore import Forms, Question, Rescored
    from medclip.models.model import Model
    from medclip.scoring.tasks import Scorer


MOST = 500
"""Images of a group, unless asked otherwise."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """Some rows of a cohort."""

    rows: NDArray[np.intp]
    """Rows of the cohort that are stressed, ascending."""
    of: Mapping[str, NDArray[np.intp]]
    """Of each attribute, and of `ALL`: the places in `rows` that its figures are over."""
    num_eligible: int
    """Rows of which some could be chosen."""


def choose(cohort: Cohort, most: int = MOST) -> Chosen:
    """Choose rows with a file and a truth.

    Of each group the first `most` are taken in the order of a hash of their files' names: a sample that is as good as
    random, does not depend on the order of the table, and is the same in each call. Figures of a group are over its own
    sample alone. Those of everybody are over the longest beginning of that order of which every row was taken.
    """
    known_N = np.array([bool(name) for name in cohort.files], bool)
    known_N &= np.any([~np.isnan(label.truth_N) for label in cohort.labels], axis=0)
    eligible = np.flatnonzero(known_N)
    ordered = eligible[np.argsort([_hash(cohort.files[i]) for i in eligible.tolist()], kind="stable")]
    taken: dict[str, NDArray[np.intp]] = {}
    for attribute in cohort.attributes:
        codes = attribute.codes_N[ordered]
        taken[attribute.name] = np.concatenate(
            [ordered[codes == g][:most] for g in range(len(attribute.groups))] or [ordered[:0]]
        )
    rows = np.unique(np.concatenate([ordered[:most], *taken.values()]))
    in_order = np.isin(ordered, rows)
    taken[ALL] = ordered[: len(ordered) if in_order.all() else int(in_order.argmin())]
    place = {name: np.sort(np.searchsorted(rows, chosen)) for name, chosen in taken.items()}
    return Chosen(rows, place, len(eligible))


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


_ALIKE = 0.02
"""Largest usual difference between a score of the audit and the pack's own; decoders and libraries differ by less."""


def check_stress(evidence: Evidence) -> CheckRows:
    """Score the images of an audit again, in every form, and compare: tables `stress`, `stress_ood`.

    Raises:
        MedclipError: WRONG_USE where the table names no files, no label is a class of the pack, or the modality has no
            corruptions. An image that cannot be read raises nothing.
    """
    from medclip.auditing.checks.stress.rescore import pack_tasks, questions_of
    from medclip.scoring.tasks import Scorer

    one, options, progress, modality = evidence.measured, evidence.options, evidence.progress, evidence.modality
    wanted, model = options.stress or Stress(), evidence.pack
    assert model is not None  # CHECKS needs it
    if not one.cohort.files:
        raise MedclipError(
            Reason.WRONG_USE,
            "the label table names no files, so that no images can be stressed.",
            hint="Give it a column `file`.",
        )
    corruptions = corruptions_of(modality, wanted.corruptions)
    tasks = pack_tasks(model, modality, options.task)
    candidates = {x.name: questions_of(x.name, tasks) for x in one.cohort.labels if x.time_N is None}
    unknown = [x.name for x in one.cohort.labels if not candidates.get(x.name)]
    if len(unknown) == len(one.cohort.labels):
        raise MedclipError(
            Reason.WRONG_USE,
            f"no label of this audit is a class of a task of {model.name}: {list_of(unknown, most=5)}.",
            hint=f"Its tasks for {spoken(modality)} images: {list_of([a.task.name for a in tasks]) or 'none'}. Another "
            "one is named with --task.",
        )
    chosen = choose(one.cohort, wanted.most)
    part = rows_of(one.cohort, chosen.rows)
    by_name = {q.name: q for several in candidates.values() for q in several}
    scorer, forms = Scorer(model), Variants(corruptions)
    scored = _rescored(
        evidence, model, scorer, part, list(by_name.values()), forms, "Reading and scoring stressed images"
    )
    questions, alike = _settled(part.labels, candidates, scored)
    scores = {name: scored.scores[q.name][1:] for name, q in questions.items()}  # changes are from form 1
    conditions = [_condition(c) for c in corruptions]
    features_KND = scored.features_FND[1:]
    ood = _strange(evidence, part, features_KND, questions, scorer, conditions, chosen)
    conditions += [Condition(SHUFFLE, "shuffled patches", None, f"{side} x {side}") for side in SHUFFLED]
    scores, all_conditions = _with_prompts(
        model, questions, features_KND[0], modality, part, scores, conditions, wanted.temperature
    )
    thresholds = {name: t for name, t in one.values.items() if name in questions and alike[name]}
    progress.stage("Comparing stressed images", num_steps(part, all_conditions))
    rows = shift_rows(one, part, scores, all_conditions, chosen.of, thresholds, options, progress.step)
    rows += _patches(evidence, part, questions, thresholds)
    notes = _notes(model, modality, chosen, scored, unknown, alike, wanted)
    return CheckRows({"stress": rows, "stress_ood": ood}, notes)


def _rescored(
    evidence: Evidence,
    model: Model,
    scorer: Scorer,
    part: Cohort,
    questions: Sequence[Question],
    forms: Forms,
    stage: str,
) -> Rescored:
    """Score the files of rows in several forms, each file once; by row."""
    from medclip.auditing.checks.stress.rescore import rescore

    images, progress = evidence.options.image_checks.images, evidence.progress
    assert images is not None  # AuditOptions refuses it
    files = list(dict.fromkeys(part.files))
    progress.stage(f"{stage}: {forms.num} forms", len(files))
    paths = [images / name for name in files]
    by_file = rescore(model, scorer, paths, evidence.modality, questions, forms, evidence.settings, progress.step)
    place = {name: i for i, name in enumerate(files)}
    return by_file.of_rows(np.array([place[name] for name in part.files], np.intp))


def _strange(
    evidence: Evidence,
    part: Cohort,
    features_KND: NDArray[np.float32],
    questions: Mapping[str, Question],
    scorer: Scorer,
    conditions: Sequence[Condition],
    chosen: Chosen,
) -> list[Row]:
    """Ask of the first question's task whether its outputs see what was done to the images."""
    one, options, progress = evidence.measured, evidence.options, evidence.progress
    first = next(iter(questions.values()))
    classes_CD = scorer.vectors(first.asked_task).positive if scorer.has_text else None
    strange = strangeness_scores(features_KND, classes_CD, part.patients_N, options.seed)
    if first.asked_task.task.rules.independent:  # a softmax over findings means nothing
        strange = {name: strange[name] for name in (MAX_LOGIT, DISTANCE) if name in strange}
    progress.stage("Asking whether anybody would notice", len(groups(part, chosen.of)))
    rows = strangeness_rows(
        part,
        strange,
        conditions,
        chosen.of,
        one.roundings,
        fewest=options.small_cells.min_patients,
        num_resamples=options.num_resamples,
        seed=options.seed,
        step=progress.step,
    )
    return [{"model": one.name, **row} for row in rows]


def _with_prompts(
    model: Model,
    questions: Mapping[str, Question],
    features_ND: NDArray[np.float32],
    modality: Modality,
    part: Cohort,
    scores: Mapping[str, NDArray[np.float64]],
    conditions: Sequence[Condition],
    temperature: float,
) -> tuple[dict[str, NDArray[np.float64]], list[Condition]]:
    """Add the scores of prompts in the context of the image; an image-only pack has none."""
    if not model.has_text:
        return dict(scores), list(conditions)
    joined: dict[str, NDArray[np.float64]] = {}
    more: list[Condition] = []
    for name, question in questions.items():
        answers = list(prompt_scores(model, question, features_ND, modality, part, temperature))
        more = [condition for condition, _ in answers]
        joined[name] = np.concatenate([scores[name], *(score_N[None] for _, score_N in answers)])
    return joined, [*conditions, *more]


def _patches(
    evidence: Evidence, part: Cohort, questions: Mapping[str, Question], thresholds: Mapping[str, float]
) -> list[Row]:
    """Spoil one cell at a time, also with softer attention where the tower has any."""
    from medclip.models.towers.layers import with_attention_temperature
    from medclip.scoring.tasks import Scorer

    one, options = evidence.measured, evidence.options
    if not thresholds or evidence.pack is None:
        return []
    few = choose(part, min(PATCH_IMAGES, options.stress.most if options.stress else PATCH_IMAGES))
    spoilt = rows_of(part, few.rows)
    of_labels = [questions[name] for name in thresholds]
    rows: list[Row] = []
    for temperature in (1.0, *TEMPERATURES):
        model = evidence.pack if temperature == 1 else with_attention_temperature(evidence.pack, temperature)
        if model is None:
            break
        stage = "Spoiling one cell of images at a time"
        scored = _rescored(evidence, model, Scorer(model), spoilt, of_labels, Patches(SPOILT), stage)
        named = {
            **{"model": one.name, "kind": "patches", "name": SPOILT.name, "grade": SPOILT.grade},
            "strength": "" if temperature == 1 else f"attention / {temperature:g}",
        }
        rows += patch_rows(
            spoilt,
            {name: scored.scores[questions[name].name] for name in thresholds},
            few.of,
            thresholds,
            one.roundings,
            named,
            fewest=options.small_cells.min_patients,
            num_resamples=options.num_resamples,
            seed=options.seed,
            step=lambda: None,
        )
    return rows


def _condition(corruption: Corruption) -> Condition:
    strength = corruption.strength
    text = ", ".join(f"{part:g}" for part in (strength if isinstance(strength, tuple) else (strength,)))
    return Condition("corruption", corruption.name, corruption.grade, text)


def _settled(
    labels: Sequence[Label], candidates: Mapping[str, tuple[Question, ...]], scored: Rescored
) -> tuple[dict[str, Question], dict[str, bool]]:
    """Choose, of several questions, the one whose scores are nearest to the audited ones; say whether near."""
    questions: dict[str, Question] = {}
    alike: dict[str, bool] = {}
    for label in labels:
        apart = []
        for question in candidates.get(label.name, ()):
            off = np.abs(scored.scores[question.name][0] - label.score_N)
            apart.append(float(np.nanquantile(off, 0.9)) if not np.isnan(off).all() else np.inf)
        if apart:
            nearest = int(np.argmin(apart))
            questions[label.name] = candidates[label.name][nearest]
            alike[label.name] = apart[nearest] <= _ALIKE
    return questions, alike


def _notes(
    model: Model,
    modality: Modality,
    chosen: Chosen,
    scored: Rescored,
    unknown: list[str],
    alike: Mapping[str, bool],
    wanted: Stress,
) -> list[str]:
    notes = []
    if len(chosen.rows) < chosen.num_eligible:
        notes.append(
            f"Stress: at most {number(wanted.most)} images of a group were stressed, {number(len(chosen.rows))} of "
            f"{number(chosen.num_eligible)} in all, chosen by a hash of their names; everybody is "
            f"{count(len(chosen.of[ALL]), 'image')} of them."
        )
    if scored.problems:
        lost = sum(scored.problems.values())
        notes.append(f"Stress: {count(lost, 'image')} could not be read ({by_reason(scored.problems)}).")
    if unknown:
        notes.append(f"Stress: {list_of(unknown, most=5)} could not be asked of the pack and stayed out.")
    seen = model.preprocess.budget or f"{model.preprocess.size_px} px"
    if seen != f"{REFERENCE_PX} px":
        moved = [np.nanmedian(np.abs(scores_FN[1] - scores_FN[0])) for scores_FN in scored.scores.values()]
        notes.append(
            f"Stress: strengths are for images of {REFERENCE_PX} px, so all forms, the clean one too, were brought to "
            f"that size before the {seen} of the model. This alone moves half of the scores by "
            f"{max(moved):.2g} or more, so that clean figures differ from those above."
        )
    if modality.facts.corruptions_of:
        notes.append(
            f"Stress: nobody has set grades for {spoken(modality)} images; those of "
            f"{modality.facts.corruptions_of} were taken."
        )
    far = [name for name, near in alike.items() if not near]
    if far:
        notes.append(
            f"CAUTION: the scores of {list_of(far, most=5)} in this audit are not what {model.name} says of the same "
            "images, each by itself. The stress test is about the pack; rates at the audit's thresholds are left out."
        )
    return notes
