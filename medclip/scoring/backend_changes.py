"""By how much a back-end changes the answers to a pack's questions: probabilities, decisions and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medclip.models.backends.known import FLOAT_BOUND, BackendKind
from medclip.models.prototypes.class_vectors import probabilities
from medclip.sample import Modality
from medclip.scoring.tasks import AskedTask, Scorer
from medclip.wording import count

THRESHOLD = 0.5
"""Probability from which a finding of several counts as seen; of one answer of several the likeliest counts."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model says to one question about images of one modality."""

    task: str
    classes: tuple[str, ...]
    is_choice: bool
    """One answer of several, or a probability for each class."""
    probabilities_NC: NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """Between two models' answers to the same questions."""

    largest: float
    """Of a probability; NaN where one of them is no number."""
    where: str
    """TASK:CLASS."""
    decisions: int
    """Images (of a finding: images and classes) that are decided otherwise."""
    ranks: int
    """Pairs of images in the other order; two that differ by `FLOAT_BOUND` or less, before or after, have none."""

    def refused(self, kind: BackendKind) -> str:
        """Return the figure that breaks a back-end's bound, "" where it holds."""
        if not np.isfinite(self.largest):
            return f"{self.where} is no number"
        if self.largest > kind.bound:
            return f"a probability changed by {self.largest:.2g} in {self.where}, {kind.bound:g} allowed"
        if kind.is_int8 and self.decisions:
            return f"{count(self.decisions, 'decision')} changed"
        if kind.is_int8 and self.ranks:
            return f"{count(self.ranks, 'pair of images', 'pairs of images')} changed the order"
        return ""


def answer_all(
    scorer: Scorer,
    tasks: Sequence[AskedTask],
    features_ND: NDArray[np.float32],
    modalities: Sequence[Modality],
) -> list[Answer]:
    """Ask each task about the images that it fits.

    Args:
        scorer: Scorer of the pack; back-ends have the same words and heads.
        tasks: The questions.
        features_ND: float32 [N, D] of unit norm.
        modalities: Modality of each image.

    Returns:
        For each task and modality that fit each other, the answers for the images of that modality.
    """
    answers = []
    for question in tasks:
        for modality in sorted(set(modalities)):
            rows_N = np.array([each == modality for each in modalities])
            if not question.fits_modality(modality):
                continue
            logits_NC = scorer.logits(features_ND[rows_N], question, modality)
            values_NC = probabilities(logits_NC, question.task.kind).astype(np.float64)
            answers.append(Answer(question.task.name, question.names, question.task.rules.one_answer, values_NC))
    return answers


def directions_of(
    scorer: Scorer, tasks: Sequence[AskedTask], features_ND: NDArray[np.float32], modalities: Sequence[Modality]
) -> NDArray[np.float32]:
    """Return for each image the weights of its likeliest answer in the features, of the first task that fits it.

    Args:
        scorer: Scorer of the pack.
        tasks: The questions.
        features_ND: float32 [N, D] of unit norm.
        modalities: Modality of each image.

    Returns:
        float32 [N, D], against the mean of all classes; zeros for an image that no task fits. Heads that are not linear
        in features are taken along the axes of the features.
    """
    dim = features_ND.shape[1]
    directions_ND = np.zeros_like(features_ND)
    for modality in sorted(set(modalities)):
        rows_N = np.array([each == modality for each in modalities])
        question = next((task for task in tasks if task.fits_modality(modality)), None)
        if question is None:
            continue
        likeliest_N = scorer.logits(features_ND[rows_N], question, modality).argmax(axis=1)
        axes_DC = scorer.logits(np.eye(dim, dtype=np.float32), question, modality)
        weights_DC = axes_DC - scorer.logits(np.zeros((1, dim), np.float32), question, modality)
        centre_D1 = weights_DC.mean(axis=1, keepdims=True) if weights_DC.shape[1] > 1 else 0.0
        directions_ND[rows_N] = (weights_DC - centre_D1).T[likeliest_N]
    return directions_ND


def compare_answers(reference: Sequence[Answer], other: Sequence[Answer]) -> Change:
    """Compare answers with those of the reference, question by question.

    Args:
        reference: Answers of the tower in float32.
        other: Answers of another back-end, for the same images to the same questions.
    """
    largest, where, decisions, ranks = 0.0, "", 0, 0
    for mine, theirs in zip(reference, other, strict=True):
        change_NC = np.abs(theirs.probabilities_NC - mine.probabilities_NC)
        change_C = change_NC.max(axis=0)  # NaN where one is NaN
        worst = int(np.argmax(change_C))
        if not where or not change_C[worst] <= largest:
            largest, where = float(change_C[worst]), f"{mine.task}:{mine.classes[worst]}"
        if not np.isfinite(largest):
            break
        decisions += int((_decided(mine) != _decided(theirs)).sum())
        ranks += sum(
            _swapped(mine.probabilities_NC[:, c], theirs.probabilities_NC[:, c]) for c in range(len(mine.classes))
        )
    return Change(largest, where, decisions, ranks)


def _decided(answer: Answer) -> NDArray[np.int64] | NDArray[np.bool_]:
    if answer.is_choice:
        return answer.probabilities_NC.argmax(axis=1)
    return answer.probabilities_NC >= THRESHOLD


def _swapped(before_N: NDArray[np.float64], after_N: NDArray[np.float64]) -> int:
    higher_NN = before_N[:, None] - before_N[None] > FLOAT_BOUND
    lower_NN = after_N[None] - after_N[:, None] > FLOAT_BOUND
    return int((higher_NN & lower_NN).sum())
