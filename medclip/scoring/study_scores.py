"""What a run over files makes of its studies: the answers of every task, one row for each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.body_parts import DESCRIBED, SEEN
from medclip.dicom.header.safe_header import PARTS
from medclip.errors import Problem, Reason, Status
from medclip.imaging.ecg.quality import OTHER_SCALE
from medclip.runs.rows import ExamRow, ScoreRow, note_of
from medclip.runs.units.chunk import ChunkWork, Item
from medclip.sample import UNKNOWN, Kind, Modality, spoken
from medclip.scoring.cautions import Cautions, beside_other_scale, beside_stranger
from medclip.scoring.exam_scores import (
    ExamFeatures,
    ExamImage,
    ExamScores,
    exam_features,
    logit_on_grid,
    probability_on_grid,
)
from medclip.scoring.pooling import MEAN as POOLED_BY_MEAN
from medclip.scoring.tasks import AskedTask, Scorer
from medclip.text.vocabulary.task import Task
from medclip.wording import list_of


@dataclass(frozen=True)
class StudyFacts:
    """What stands in every row of a study and task."""

    study: str
    patient: str | None
    modality: Modality
    preprocessing: str
    """Of its first unit."""
    num_images: int
    num_failed: int
    """Files of it that failed."""
    files: str = "[]"
    """As `ScoreRow.files`; the ledger has them."""
    num_files: int = 0
    note: str | None = None
    """As `ScoreRow.note`; the ledger has it."""
    kind: Kind = Kind.IMAGE
    """Of its first unit."""
    stranger: bool = False
    """Nothing states the body part of its first unit, which looks like no image that the model has seen."""


@dataclass(frozen=True)
class StudyScores:
    """The tasks of a run and what answers them."""

    model: Any
    scorer: Scorer
    tasks: tuple[AskedTask, ...]
    exams: ExamScores | None = None
    """Answers for mammography examinations by their views; None asks them as all other studies."""
    cautions: Cautions = field(default_factory=dict)
    """What stands beside answers."""

    def refuse(self, modality: Modality, body_part: str, kind: Kind) -> Problem | None:
        """Return the problem of a unit that none of the tasks fits, None where one does."""
        return no_task(self.tasks, modality, body_part, kind)

    def withheld(self, modality: Modality, body_part: str, kind: Kind, is_stranger: bool) -> str | None:
        """Return what a unit that is scored is not asked because of its header or its image, and why.

        Returns:
            A sentence; None for one that is asked every question about its modality and kind.
        """
        tasks = [
            question.task
            for question in self.tasks
            if question.fits_kind(modality, kind)
            and not self.fits(question, modality, body_part, kind, stranger=is_stranger)
        ]
        if not tasks:
            return None
        if body_part.startswith(SEEN):
            seen = body_part.removeprefix(SEEN).lower().split()
            why = (
                f"nothing states the body part, and the model sees the {list_of(seen, 'or')}; --task asks all the same"
            )
        elif all(task.is_about(body_part) for task in tasks):
            why = f"nothing states the body part, and the image {_unlike(tasks, modality)}"
        else:
            why = f"the header states {_stated(body_part)}"
        return f"Not asked {list_of([task.name for task in tasks], 'or', most=4)}: {why}."

    def refuse_stranger(self, modality: Modality) -> Problem | None:
        """Return the problem of a unit of an unknown body part; None where a task is about any body part."""
        fitting = [question.task for question in self.tasks if question.fits_modality(modality)]
        if any(not task.body_parts for task in fitting):
            return None
        names = list_of([task.name for task in fitting], most=4)
        return Problem(
            Reason.NO_TASK,
            f"nothing states the body part, and the image {_unlike(fitting, modality)}, which alone are asked {names}; "
            "name its modality in a table to score it all the same, or ask with --prompt.",
        )

    def rows(self, work: ChunkWork) -> Iterator[ScoreRow | ExamRow]:
        """Yield the rows of a finished chunk's studies; of an examination also those of its views."""
        for (study, modality), key in work.study_keys().items():
            assert modality is not None
            items = [item for item in work.items if item.study == study]
            read = [item for item in items if item.problem is None and item.modality == modality]
            failed = [
                item
                for item in items
                if item.problem is not None
                and item.problem.status is Status.FAILED
                and item.modality in (None, modality)
            ]
            num_failed = sum(len(item.files) for item in failed)
            exams: dict[tuple[int, ...], ExamFeatures] = {}
            for question in self.tasks:
                if question.task.rules.placed:  # `medclip.scoring.image_maps` answers these
                    continue
                fitting = [i for i in read if self.fits(question, modality, i.body_part, i.kind, stranger=i.stranger)]
                if not fitting:
                    continue
                first = fitting[0].reading
                assert first is not None
                patient = work.chunk.plan.studies[study].patient
                kind, is_stranger = fitting[0].kind, fitting[0].stranger
                note = note_of(item.reading.headers for item in fitting if item.reading is not None)
                facts = StudyFacts(
                    key,
                    patient,
                    modality,
                    first.preprocessing,
                    0,
                    num_failed,
                    note=note,
                    kind=kind,
                    stranger=is_stranger,
                )
                if self.asks_views(modality):
                    ids = tuple(item.files[0].id for item in fitting)
                    exam = exams[ids] = exams.get(ids) or self._exam(fitting)
                    yield from self.examine(question, facts, exam)
                else:
                    tokens = self.scorer.takes_tokens(question)
                    rows = [item.rows_VX if tokens else item.features_VD for item in fitting]
                    features = np.concatenate([one for one in rows if one is not None])
                    yield from self.answer(question, facts, features, len(features))

    def fits(self, question: AskedTask, modality: Modality, body_part: str, kind: Kind, *, stranger: bool) -> bool:
        """Whether a unit is asked a question: a stranger only what is about any body part."""
        return question.fits(modality, body_part, kind) and not (stranger and question.task.body_parts)

    def asks_views(self, modality: Modality) -> bool:
        """Whether studies of a modality are asked by their views."""
        return self.exams is not None and modality is Modality.MAMMOGRAPHY

    def _exam(self, items: Sequence[Item]) -> ExamFeatures:
        """Return the images of a study with their vectors."""
        images = [
            ExamImage(
                item.files[0].id, item.reading.laterality, item.reading.view, item.reading.headers, item.features_VD
            )
            for item in items
            if item.reading is not None and item.features_VD is not None
        ]
        return exam_features(self.model, images)

    def examine(self, question: AskedTask, facts: StudyFacts, exam: ExamFeatures) -> Iterator[ScoreRow | ExamRow]:
        """Yield the rows of one examination and task: as a study, and those of its views."""
        assert self.exams is not None
        answer = self.exams.whole(exam, question)
        if answer.pooling == POOLED_BY_MEAN:
            yield from self.answer(question, facts, exam.whole[0], len(exam.exam.used))
        else:  # by how much another wording changes a pooled answer, nobody computes
            facts = replace(facts, num_images=len(exam.exam.used))
            scored = answer.logits_1C, answer.probabilities_1C
            yield from self.rows_of(question, facts, 0, *scored, [None] * len(question.names))
        yield from self.exams.rows(exam, question, facts.study, facts.patient)

    def answer(
        self, question: AskedTask, facts: StudyFacts, features_ND: NDArray[np.float32], num_images: int
    ) -> Iterator[ScoreRow]:
        """Yield the rows of one study and task.

        Args:
            question: The task.
            facts: Facts of the study.
            features_ND: float32 [N, D] of all images of the study that it is about.
            num_images: Number of these images; more than N where images were fused.
        """
        features_1ND = features_ND[None]
        logits_1C, probabilities_1C = self.scorer.studies(features_1ND, question, facts.modality)
        spreads = self.scorer.spreads(features_1ND, question, facts.modality)
        facts = replace(facts, num_images=num_images)
        yield from self.rows_of(question, facts, 0, logits_1C, probabilities_1C, spreads)

    def rows_of(
        self,
        question: AskedTask,
        facts: StudyFacts,
        place: int,
        logits_SC: NDArray[np.float32],
        probabilities_SC: NDArray[np.float32],
        spreads: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]] | None],
    ) -> Iterator[ScoreRow]:
        """Yield the rows of one of the studies that were scored together, by its place among them."""
        for c, name in enumerate(question.names):
            spread = spreads[c]
            yield ScoreRow(
                study=facts.study,
                patient=facts.patient,
                modality=facts.modality,
                task=question.task.name,
                class_=name,
                kind=question.task.kind,
                probability=probability_on_grid(probabilities_SC[place, c]),
                logit=logit_on_grid(logits_SC[place, c]),
                num_images=facts.num_images,
                model=self.model.name,
                model_version=str(self.model.card.version),
                preprocessing=facts.preprocessing,
                num_failed=facts.num_failed,
                against=question.against(name),
                logit_spread=None if spread is None else logit_on_grid(spread[0][place]),
                probability_spread=None if spread is None else probability_on_grid(spread[1][place]),
                files=facts.files,
                num_files=facts.num_files,
                note=facts.note,
                caution=self._caution(question, facts, name),
            )

    def _caution(self, question: AskedTask, facts: StudyFacts, name: str) -> str | None:
        """Return what stands beside an answer: of a record that is not in mV, and of words that a stranger is asked."""
        caution = self.cautions.get((facts.modality, facts.kind, question.task.name, name))
        if OTHER_SCALE in (facts.note or "").split():
            return beside_other_scale(caution)
        return beside_stranger(caution, facts.modality) if facts.stranger and question.prompts else caution


def no_task(tasks: Sequence[AskedTask], modality: Modality, body_part: str, kind: Kind = Kind.IMAGE) -> Problem | None:
    """Return the problem of a unit that none of the tasks fits, None where one does."""
    if modality is UNKNOWN:
        return Problem(
            Reason.MODALITY_UNKNOWN,
            "nobody knows the modality of this image, so nothing is asked of it; embed it anew with a table that names "
            "its modality.",
        )
    if any(question.fits(modality, body_part, kind) for question in tasks):
        return None
    is_chosen = any(question.chosen for question in tasks)
    no_task_is_about = "none of the tasks of this run is about" if is_chosen else "the model lists no task for"
    about = [question for question in tasks if question.is_about(modality)]
    if not about:
        return Problem(
            Reason.NO_TASK,
            f"{no_task_is_about} {spoken(modality)} images; ask with --prompt, or name a task with --task.",
        )
    if not any(question.fits_kind(modality, kind) for question in about):
        measured = list_of([question.task.name for question in about], "or", most=4)
        return Problem(
            Reason.NO_TASK,
            f"no task of the model's card was measured on {spoken(modality)} {kind}s; --task asks one all the same "
            f"({measured}), or ask with --prompt.",
        )
    return Problem(
        Reason.NO_TASK,
        f"the header states {_stated(body_part)}, and {no_task_is_about} {spoken(modality)} images of it; ask with "
        "--prompt.",
    )


def _stated(body_part: str) -> str:
    """Write what a header states of the body part: a term of the standard itself, of anything else that it is one."""
    stated, described, terms = body_part.partition(DESCRIBED)
    part = stated.strip(" ,")
    by_description = f"by its description {list_of(terms.split())}" if described else ""
    if by_description and not part:
        return f"{by_description} as the body part"
    first = f"the body part {part}" if part in PARTS else "another body part"
    return f"{first} and {by_description}" if by_description else first


def _unlike(tasks: Sequence[Task], modality: Modality) -> str:
    """Write that an image is unlike those that some tasks about one body part were learned from."""
    parts = list_of(list(dict.fromkeys(task.body_parts[0].lower() for task in tasks)), "or")
    return f"does not look like the {spoken(modality)} images of the {parts} that the model has seen"
