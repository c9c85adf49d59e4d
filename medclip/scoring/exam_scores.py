"""What a mammography examination answers: as a whole, each of its breasts, and each of its images.

Views become one answer through the pack's fusion of their vectors, whose attention says how much each of them counts;
a pack without one is asked for the mean of the views' logits. The breasts' answers may be pooled besides
(`medclip.scoring.pooling`); the answer by the mean then stands beside that of the examination.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.files.grouping.mammography_exam import DISPLACED, ExamView, MammographyExam, arrange, exam_view_of_row
from medclip.models.prototypes.class_vectors import mean_vector
from medclip.runs.rows import ExamRow
from medclip.sample import SIDES, Kind, Modality
from medclip.scoring.cautions import Cautions
from medclip.scoring.pooling import MEAN as POOLED_BY_MEAN
from medclip.scoring.pooling import pool_breasts, pooled_logits, rule_of
from medclip.scoring.tasks import AskedTask, Scorer

PROBABILITY_DIGITS, LOGIT_DIGITS = 6, 4
"""The grid that scores are stored on, so that tables do not carry digits that mean nothing.

The last bits of a forward pass hang on its shape: with another batch size, or after a batch that memory did not hold
was halved, float32 probabilities of one image differ by some 1e-8 and logits by some 1e-5. Tables hold probabilities as
multiples of 1e-6 and logits as multiples of 1e-4, so that such a change moves nothing, or a value that lies between two
steps by one step. The logit keeps the order of probabilities that round to 0 or 1.
"""
PROBABILITY_STEP, LOGIT_STEP = 10.0**-PROBABILITY_DIGITS, 10.0**-LOGIT_DIGITS


def probability_on_grid(value: float) -> float:
    """Return the nearest multiple of 1e-6.

    Example:
        >>> probability_on_grid(0.12345678)
        0.123457
    """
    return round(float(value), PROBABILITY_DIGITS) + 0.0  # -0.0 becomes 0.0


def logit_on_grid(value: float) -> float:
    """Return the nearest multiple of 1e-4.

    Example:
        >>> logit_on_grid(-0.00001)
        0.0
    """
    return round(float(value), LOGIT_DIGITS) + 0.0


MEAN = "mean_of_logits"
"""Stands for the fusion of packs that have none."""


@dataclass(frozen=True, eq=False)
class ExamFeatures:
    """An examination with the vectors of its images, and what fusion makes of them."""

    model: Any
    exam: ExamViews
    rows: Sequence[int]
    """Number of the file of each image."""
    features_ND: NDArray[np.float32]
    """One vector for each image, of unit norm."""

    @cached_property
    def whole(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What is scored for the examination, float32 [X, D], and the share of each of the images that answer."""
        return self._fuse(self.exam.used)

    @cached_property
    def breasts(self) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """The same of each breast."""
        return {side: self._fuse(self.exam.of_side(side)) for side in self.exam.sides}

    @cached_property
    def alone(self) -> list[NDArray[np.float32]]:
        """What is scored for each image by itself, float32 [1, D]: what fusion makes of it where it is all there is."""
        return [self._fuse([n])[0] for n in range(len(self.rows))]

    def _fuse(self, numbers: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        features_VD = self.features_ND[list(numbers)]
        if getattr(self.model, "fusion", None) is None:  # logits are averaged, one for each vector
            return features_VD, np.full(len(numbers), 1 / len(numbers), np.float32)
        vector_D, weights_V = self.model.fuse(features_VD, [self.exam.views[n].view for n in numbers])
        return vector_D[None], weights_V


@dataclass(frozen=True, eq=False)
class ExamImage:
    """What a run keeps of an image of an examination."""

    row: int
    """Number of its file."""
    laterality: str | None
    view: str | None
    headers: str | None
    """These as in files.parquet."""
    features_VD: NDArray[np.float32]

    @property
    def vector_D(self) -> NDArray[np.float32]:
        """Its vector; of a file with several frames their normalised mean."""
        return self.features_VD[0] if len(self.features_VD) == 1 else mean_vector(self.features_VD)


def exam_features(model: Any, images: Sequence[ExamImage]) -> ExamFeatures:
    """Collect the images of an examination.

    Args:
        model: Model that is loaded.
        images: Images of the examination, in the order of their files.
    """
    views = (exam_view_of_row(f"{n:09}", im.laterality, im.view, im.headers) for n, im in enumerate(images))
    rows, vectors = [image.row for image in images], [image.vector_D for image in images]
    return ExamFeatures(model, ExamViews(tuple(views)), rows, np.stack(vectors))


@dataclass(frozen=True, eq=False)
class ExamAnswer:
    """What an examination as a whole answers to one task."""

    logits_1C: NDArray[np.float32]
    probabilities_1C: NDArray[np.float32]
    pooling: str
    """Rule by which breasts were pooled; the mean where a breast is all that there is, or no side is known."""
    means_1C: NDArray[np.float32]
    """Probabilities by the mean."""


@dataclass(frozen=True)
class ExamScores:
    """Scores examinations with one model."""

    model: Any
    scorer: Scorer
    fusion: str
    """How views become one answer: name of the pack's fusion, or `MEAN`."""
    cautions: Cautions = field(default_factory=dict)
    """What stands beside answers."""
    pool: str | None = None
    """How breasts are pooled; None as the pack's card says."""

    def whole(self, features: ExamFeatures, question: AskedTask) -> ExamAnswer:
        """Answer for an examination as a whole."""
        by_mean = self.scorer.studies(features.whole[0][None], question, Modality.MAMMOGRAPHY)
        rule, sharpness = rule_of(self.model.card, question.task, self.pool)
        if rule == POOLED_BY_MEAN or len(features.breasts) < 2:
            return ExamAnswer(*by_mean, POOLED_BY_MEAN, by_mean[1])
        of_breasts = [
            self.scorer.studies(breast_XD[None], question, Modality.MAMMOGRAPHY)[1][0]
            for breast_XD, _ in features.breasts.values()
        ]
        order = [c.name for c in question.task.classes]
        columns = sorted(range(len(question.names)), key=lambda c: order.index(question.names[c]))
        pooled_C = np.empty(len(columns))
        pooled_C[columns] = pool_breasts(np.stack(of_breasts)[:, columns], question.task, rule, sharpness)
        logits_C = pooled_logits(pooled_C, question.task)
        return ExamAnswer(logits_C.astype(np.float32)[None], pooled_C.astype(np.float32)[None], rule, by_mean[1])

    def rows(self, features: ExamFeatures, question: AskedTask, study: str, patient: str | None) -> Iterator[ExamRow]:
        """Yield the rows of an examination and task: of it, of its breasts (R, L), of its images as they hang."""
        exam = features.exam
        answer, (_, shares_of_exam) = self.whole(features, question), features.whole
        of_exam = dict(zip(exam.used, shares_of_exam.tolist(), strict=True))
        of_breast: dict[int, float] = {}
        common = (question, study, patient)
        yield from self._rows(*common, "exam", answer, exam.missing(), exam.notes(), num_views=len(exam.used))
        for side, (breast_XD, shares) in features.breasts.items():
            numbers = exam.of_side(side)
            of_breast.update(zip(numbers, shares.tolist(), strict=True))
            lacking, notes = exam.missing(side), exam.notes(side)
            yield from self._rows(*common, "breast", breast_XD, lacking, notes, num_views=len(numbers), side=side)
        for n in (*exam.used, *exam.set_aside):
            view = exam.views[n].view
            yield from self._rows(
                *common,
                "view",
                features.alone[n],
                (),
                exam.notes_of(n),
                num_views=1,
                side=view.side or None,
                position=view.position or None,
                view_kind=view.kind,
                row=features.rows[n],
                attention_breast=of_breast.get(n),
                attention_exam=of_exam.get(n),
            )

    def _rows(
        self,
        question: AskedTask,
        study: str,
        patient: str | None,
        level: str,
        scored: NDArray[np.float32] | ExamAnswer,
        missing: Sequence[str],
        notes: Sequence[str],
        **values: Any,
    ) -> Iterator[ExamRow]:
        answer = scored if isinstance(scored, ExamAnswer) else None
        if isinstance(scored, ExamAnswer):
            logits_1C, probabilities_1C = scored.logits_1C, scored.probabilities_1C
        else:
            logits_1C, probabilities_1C = self.scorer.studies(scored[None], question, Modality.MAMMOGRAPHY)
        absent = dict.fromkeys(("side", "position", "view_kind", "row", "file", "attention_breast", "attention_exam"))
        for c, name in enumerate(question.names):
            yield ExamRow(
                study=study,
                patient=patient,
                level=level,
                task=question.task.name,
                class_=name,
                kind=question.task.kind,
                probability=probability_on_grid(probabilities_1C[0, c]),
                logit=logit_on_grid(logits_1C[0, c]),
                fusion=self.fusion,
                missing=json.dumps(list(missing)),
                note=" ".join(notes) or None,
                model=self.model.name,
                model_version=str(self.model.card.version),
                caution=self.cautions.get((Modality.MAMMOGRAPHY, Kind.IMAGE, question.task.name, name)),
                pooling=None if answer is None else answer.pooling,
                probability_by_mean=None if answer is None else probability_on_grid(answer.means_1C[0, c]),
                **{**absent, **values},
            )


@dataclass(frozen=True)
class ExamViews:
    """The images of an examination: which of them answer for it, and what is to be known of the answer.

    It is decided of what a run keeps of each image (side, view and the header values that may leave), so that the
    decision is the same for files and for their stored vectors.

    The views that are in their places answer. A breast without one is answered by what else there is of it, whole
    images before partial ones; an examination of which no side is known, by all of its images.

    Args:
        views: Views in the order of their files; each with a name of its own, and equal ones count in the order of
            names.

    Example:
        >>> from medclip.sample import ViewType
        >>> exam = ExamViews((ExamView("1", ViewType("L", "CC")), ExamView("2", ViewType("L", "CC"))))
        >>> exam.used, exam.missing(), exam.notes(), exam.notes_of(1)
        ((0,), ('R-CC', 'R-MLO', 'L-MLO'), ('one_view', 'repeat'), ('repeat',))
    """

    views: tuple[ExamView, ...]

    @cached_property
    def arranged(self) -> MammographyExam:
        """The views in their places, and what is set aside."""
        return arrange(self.views)

    @cached_property
    def used(self) -> tuple[int, ...]:
        """Numbers of the images that answer, as they hang: R-CC, L-CC, R-MLO, L-MLO."""
        names = {view.name for view in self.arranged.chosen}
        used = [n for n, view in enumerate(self.views) if view.name in names]
        for side in SIDES:
            of_side = [n for n, view in enumerate(self.views) if view.view.side == side]
            used += [] if any(n in used for n in of_side) else self._whole(of_side)
        used = used or self._whole(range(len(self.views)))
        return tuple(sorted(used, key=lambda n: (self.views[n].view.hanging, n)))

    @property
    def set_aside(self) -> tuple[int, ...]:
        """Numbers of the images that do not answer."""
        return tuple(n for n in range(len(self.views)) if n not in self.used)

    @property
    def sides(self) -> tuple[str, ...]:
        """The breasts that have an answer."""
        return tuple(side for side in SIDES if self.of_side(side))

    def of_side(self, side: str) -> tuple[int, ...]:
        """Return the numbers of the images that answer for a breast."""
        return tuple(n for n in self.used if self.views[n].view.side == side)

    def missing(self, side: str = "") -> tuple[str, ...]:
        """Return the places without an image, of the examination or of one breast."""
        return tuple(slot for slot in self.arranged.missing if slot.startswith(side))

    def notes_of(self, n: int) -> tuple[str, ...]:
        """Return what is to be known of an image: why it is none of the views, and how it differs from others."""
        view = self.views[n]
        notes = [str(reason) for aside, reason in self.arranged.set_aside if aside.name == view.name]
        notes += ["only_for_processing"] if view.intent == "processing" and not notes else []
        notes += ["implant"] if view.implant or DISPLACED in view.modifiers else []
        return tuple(notes)

    def notes(self, side: str = "") -> tuple[str, ...]:
        """Return what is to be known of the answer of the examination or of one breast, in alphabetical order."""
        used = self.of_side(side) if side else self.used
        numbers = [n for n, view in enumerate(self.views) if view.view.side == side or not side]
        notes = {note for n in numbers for note in self.notes_of(n)}
        if len(used) == 1:
            notes.add("one_view")
        elif self.missing(side):
            notes.add("missing_views")
        return tuple(sorted(notes))

    def _whole(self, numbers: Sequence[int]) -> list[int]:
        return [n for n in numbers if not self.views[n].is_partial] or list(numbers)
