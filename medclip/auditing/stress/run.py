"""The stress test of an audit: the pack shown the same images under corruptions, by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.groups.measure import Measured
from medclip.auditing.input.read import rows_of
from medclip.auditing.options import MeasureOptions, Stress
from medclip.auditing.stress.patches import MOST as PATCH_IMAGES
from medclip.auditing.stress.patches import SPOILT, TEMPERATURES, Patches, patch_rows
from medclip.auditing.stress.prompts import prompt_scores
from medclip.auditing.stress.sampling import Chosen, choose
from medclip.auditing.stress.shifts import Condition, Row, num_steps, shift_rows
from medclip.auditing.stress.strangeness import DISTANCE, MAX_LOGIT, groups, strangeness_rows, strangeness_scores
from medclip.auditing.stress.variants import Variants
from medclip.errors import MedclipError, Reason
from medclip.imaging.corruptions.catalogue import (
    DATASETS,
    REFERENCE_PX,
    Corruption,
    corruptions_of,
)
from medclip.progress import Progress
from medclip.sample import Modality, spoken
from medclip.settings import Settings
from medclip.statistics.cohort import ALL, Cohort, Label
from medclip.wording import by_reason, count, list_of, number

if TYPE_CHECKING:
    from medclip.auditing.stress.questions import Question
    from medclip.auditing.stress.rescore import Forms, Rescored
    from medclip.models.model import Model
    from medclip.scoring.tasks import Scorer

_OWN_DATASETS = (Modality.MAMMOGRAPHY, Modality.MRI, Modality.ENDOSCOPY)
"""Modalities that MedMNIST-C has not; they take the strengths of another."""
_ALIKE = 0.02
"""Largest usual difference between a score of the audit and the pack's own; decoders and libraries differ by less."""


@dataclass(frozen=True)
class Stressed:
    """Rows of the tables of a stress test."""

    stress: tuple[Row, ...]
    stress_ood: tuple[Row, ...]
    notes: tuple[str, ...]


def stress_test(
    one: Measured, model: Model, modality: Modality, options: MeasureOptions, settings: Settings, progress: Progress
) -> Stressed:
    """Score the images of an audit again, in every form, and compare.

    Args:
        one: The audited model, measured.
        model: Pack of the model, loaded.
        modality: Modality of the images.
        options: Options, of which `stress` says what is done and `image_checks.images` where the files are.
        settings: Limits and number of reading processes.
        progress: Progress bar of the images.

    Raises:
        MedclipError: WRONG_USE where the table names no files, no label is a class of the pack, or the modality has no
            corruptions. An image that cannot be read raises nothing.
    """
    from medclip.auditing.stress.questions import pack_tasks, questions_of
    from medclip.scoring.tasks import Scorer

    wanted, images = options.stress or Stress(), options.image_checks.images
    assert images is not None  # MeasureOptions refuses it
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
    asked = {q.name: q for several in candidates.values() for q in several}
    session = _Session(model, Scorer(model), modality, images, settings, progress)
    scored = session.scored(part, list(asked.values()), Variants(corruptions), "Reading and scoring stressed images")
    questions, alike = _settled(part.labels, candidates, scored)
    scores = {name: scored.scores[q.name][1:] for name, q in questions.items()}  # changes are from form 1
    conditions = [_condition(c) for c in corruptions]
    features_KND = scored.features_FND[1:]
    ood = _strange(one, part, features_KND, questions, session.scorer, conditions, chosen, options, progress)
    scores, all_conditions = _with_prompts(model, questions, features_KND[0], modality, part, scores, conditions)
    thresholds = {name: t for name, t in one.values.items() if name in questions and alike[name]}
    progress.stage("Comparing stressed images", num_steps(part, all_conditions))
    rows = shift_rows(one, part, scores, all_conditions, chosen.of, thresholds, options, progress.step)
    rows += _patches(one, part, questions, thresholds, session, options)
    notes = _notes(model, modality, chosen, scored, unknown, alike, wanted)
    return Stressed(tuple(rows), tuple(ood), tuple(notes))


@dataclass(frozen=True)
class _Session:
    """What is the same each time that images are scored."""

    model: Model
    scorer: Scorer
    modality: Modality
    images: Path
    settings: Settings
    progress: Progress

    def scored(self, part: Cohort, questions: Sequence[Question], forms: Forms, stage: str) -> Rescored:
        """Score the files of rows in several forms, each file once; by row."""
        from medclip.auditing.stress.rescore import rescore

        files = list(dict.fromkeys(part.files))
        self.progress.stage(f"{stage}: {forms.num} forms", len(files))
        paths = [self.images / name for name in files]
        by_file = rescore(
            self.model, self.scorer, paths, self.modality, questions, forms, self.settings, self.progress.step
        )
        place = {name: i for i, name in enumerate(files)}
        of_row_N = np.array([place[name] for name in part.files], np.intp)
        return by_file.of_rows(of_row_N)


def _strange(
    one: Measured,
    part: Cohort,
    features_KND: NDArray[np.float32],
    questions: Mapping[str, Question],
    scorer: Scorer,
    conditions: Sequence[Condition],
    chosen: Chosen,
    options: MeasureOptions,
    progress: Progress,
) -> list[Row]:
    """Ask of the first question's task whether its outputs see what was done to the images."""
    first = next(iter(questions.values()))
    classes_CD = scorer.vectors(first.asked).positive if scorer.has_text else None
    strange = strangeness_scores(features_KND, classes_CD, part.patients_N, options.seed)
    if first.asked.task.kind == "multilabel":  # a softmax over findings means nothing
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
) -> tuple[dict[str, NDArray[np.float64]], list[Condition]]:
    """Add the scores of prompts in the context of the image; an image-only pack has none."""
    if not model.has_text:
        return dict(scores), list(conditions)
    joined: dict[str, NDArray[np.float64]] = {}
    more: list[Condition] = []
    for name, question in questions.items():
        answers = list(prompt_scores(model, question, features_ND, modality, part))
        more = [condition for condition, _ in answers]
        joined[name] = np.concatenate([scores[name], *(score_N[None] for _, score_N in answers)])
    return joined, [*conditions, *more]


def _patches(
    one: Measured,
    part: Cohort,
    questions: Mapping[str, Question],
    thresholds: Mapping[str, float],
    session: _Session,
    options: MeasureOptions,
) -> list[Row]:
    """Spoil one cell at a time, also with softer attention where the tower has any."""
    from medclip.models.towers.layers import with_attention_temperature
    from medclip.scoring.tasks import Scorer

    if not thresholds:
        return []
    few = choose(part, min(PATCH_IMAGES, options.stress.most if options.stress else PATCH_IMAGES))
    shown = rows_of(part, few.rows)
    asked = [questions[name] for name in thresholds]
    rows: list[Row] = []
    for temperature in (1.0, *TEMPERATURES):
        model = session.model if temperature == 1 else with_attention_temperature(session.model, temperature)
        if model is None:
            break
        using = replace(session, model=model, scorer=Scorer(model))
        scored = using.scored(shown, asked, Patches(SPOILT), "Spoiling one cell of images at a time")
        named = {
            **{"model": one.name, "kind": "patches", "name": SPOILT.name, "grade": SPOILT.grade},
            "strength": "" if temperature == 1 else f"attention / {temperature:g}",
        }
        rows += patch_rows(
            shown,
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
    if modality in _OWN_DATASETS:
        notes.append(
            f"Stress: nobody has set grades for {spoken(modality)} images; those of {_KNOWN[DATASETS[modality]]} were "
            "taken."
        )
    far = [name for name, near in alike.items() if not near]
    if far:
        notes.append(
            f"CAUTION: the scores of {list_of(far, most=5)} in this audit are not what {model.name} says of the same "
            "images, each by itself. The stress test is about the pack; rates at the audit's thresholds are left out."
        )
    return notes


_KNOWN = {"pneumoniamnist": "chest X-rays", "organamnist": "CT slices", "dermamnist": "dermoscopic images"}
