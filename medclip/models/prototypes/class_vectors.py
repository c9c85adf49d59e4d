"""Zero-shot classification: prompts become class vectors, image features become logits and probabilities.

Prompt ensembling follows CLIP: encode every wording, normalise each, average, normalise again. Multi-label classes are
scored against their negation (the positive/negative prompt pair of CheXzero), at the model's own logit scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medclip.text.vocabulary.prompts import ClassPrompts, expand
from medclip.text.vocabulary.task import Task
from medclip.text.vocabulary.task_kinds import kind_named


class TextEncoder(Protocol):
    """Anything that turns sentences into unit vectors."""

    def encode_text(self, texts: list[str]) -> NDArray[np.float32]:
        """Encode N sentences into float32 [N, D] of unit norm."""
        ...


@dataclass(frozen=True, eq=False)
class ClassVectors:
    """What a task's classes look like in the embedding space."""

    names: tuple[str, ...]
    positive: NDArray[np.float32]
    """float32 [C, D], unit norm."""
    negative: NDArray[np.float32] | None
    """float32 [C, D], unit norm, for multi-label tasks; None for multi-class ones."""


def mean_vector(features_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the normalised mean of unit vectors, such as those of views, float32 [D]; zeros where they cancel out.

    Example:
        >>> [f"{x:.4f}" for x in mean_vector(np.array([[1, 0], [0, 1], [0, 1]], np.float32))]
        ['0.4472', '0.8944']
    """
    return normalised(features_ND.sum(axis=0, dtype=np.float64))


def normalised(vector_D: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return a vector at unit length, as float32; zeros stay."""
    length = np.linalg.norm(vector_D)
    return (vector_D / length if length > 0 else vector_D).astype(np.float32)


def ensemble(prompt_vectors_ND: NDArray[np.float32], class_of_prompt: Sequence[int], num_classes: int) -> NDArray:
    """Average the unit vectors of each class's prompts and normalise again.

    Args:
        prompt_vectors_ND: float [N, D]; need not be normalised.
        class_of_prompt: Class index of each prompt, length N.
        num_classes: Number of classes, C; every class needs at least one prompt.

    Returns:
        float [C, D] of unit norm. Repeating a prompt list as a whole, or permuting it, changes nothing.
    """
    unit = _unit(prompt_vectors_ND)
    index = np.asarray(class_of_prompt)
    return _unit(np.stack([unit[index == c].mean(axis=0) for c in range(num_classes)]))


def encode_prompts(model: TextEncoder, prompts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
    """Encode lists of prompts into one vector each.

    Args:
        model: A loaded model.
        prompts: The sentences of each of C classes; every class needs at least one.

    Returns:
        float32 [C, D] of unit norm: normalise(mean(normalise(prompt vectors))).
    """
    flat = [text for of_class in prompts for text in of_class]
    index = [c for c, of_class in enumerate(prompts) for _ in of_class]
    return ensemble(model.encode_text(flat), index, len(prompts)).astype(np.float32)


def class_vectors(model: TextEncoder, task: Task, classes: Sequence[str] | None = None) -> ClassVectors:
    """Encode a task's prompts into one vector per class (and one per negation for multi-label tasks).

    Args:
        model: A loaded model.
        task: The vocabulary entry.
        classes: The classes to use, in this order; all of the task's where None.
    """
    return vectors_of(model, expand(task, classes), task.kind)


def vectors_of(model: TextEncoder, prompts: Sequence[ClassPrompts], kind: str) -> ClassVectors:
    """Encode sentences into one vector for each class (and one for its opposite for multi-label tasks)."""
    names, positive = tuple(p.name for p in prompts), encode_prompts(model, [p.positive for p in prompts])
    negative = encode_prompts(model, [p.negative for p in prompts]) if kind_named(kind).independent else None
    return ClassVectors(names, positive, negative)


def score_features(
    features_ND: NDArray[np.float32],
    vectors: ClassVectors,
    kind: str,
    logit_scale: float,
    calibration: Mapping[str, Any] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Turn image features into logits and probabilities.

    Multi-class: logit = a·cos(f, g_c), probability = softmax over the classes. Multi-label: logit =
    a·(cos(f, g⁺) − cos(f, g⁻)), probability = sigmoid. `calibration` rescales logits before that:
    logit' = scale·logit + bias[class], fitted on validation patients (Platt scaling); it never changes the order within
    a multi-label class.

    Args:
        features_ND: float32 [N, D] of unit norm.
        vectors: The task's class vectors.
        kind: Kind of the task, a row of `TASK_KINDS`.
        logit_scale: Scale a, the model's exp(logit_scale).
        calibration: `{"scale": float | {class: float}, "bias": {class: float}}` from the model card, or None.

    Returns:
        logits and probabilities, float32 [N, C] each.
    """
    logits = class_logits(features_ND, vectors, kind, logit_scale, calibration)
    return logits, probabilities(logits, kind)


def class_logits(
    features_ND: NDArray[np.float32],
    vectors: ClassVectors,
    kind: str,
    logit_scale: float,
    calibration: Mapping[str, Any] | None = None,
) -> NDArray[np.float32]:
    """Turn image features of any leading axes into logits, as `score_features` does; float32 [..., C]."""
    features = np.asarray(features_ND, dtype=np.float32)
    logits = features @ vectors.positive.T
    if kind_named(kind).independent:
        assert vectors.negative is not None
        logits = logits - features @ vectors.negative.T
    logits = logits * np.float32(logit_scale)
    return calibrated(logits, vectors.names, calibration)


def calibrated(
    logits_NC: NDArray[np.floating], names: Sequence[str], calibration: Mapping[str, Any] | None
) -> NDArray[np.floating]:
    """Rescale logits as a card says, see `score_features`; as they are where it says nothing."""
    if not calibration:
        return logits_NC
    scale = calibration.get("scale", 1.0)
    factor = [scale[n] if isinstance(scale, Mapping) else scale for n in names]
    bias = [calibration.get("bias", {}).get(n, 0.0) for n in names]
    return logits_NC * np.asarray(factor, dtype=logits_NC.dtype) + np.asarray(bias, dtype=logits_NC.dtype)


def probabilities(logits_NC: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
    """Return probabilities as the kind of the task has them, such as a softmax over classes; float32 [N, C]."""
    return kind_named(kind).probabilities_of(np.asarray(logits_NC, dtype=np.float32))


def _unit(vectors: NDArray) -> NDArray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
