"""Zero-shot classification: prompts become class vectors, image features become logits and probabilities.

Prompt ensembling follows CLIP: encode every wording, normalise each, average, normalise again. Multi-label classes are
scored against their negation (the positive/negative prompt pair of CheXzero), at the model's own logit scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

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


@dataclass(frozen=True, eq=False)
class Phrasings:
    """Ways to say one thing."""

    texts: tuple[str, ...]
    single: NDArray[np.float32]
    """float32 [M, D], unit norm: one for each text."""
    mean: NDArray[np.float32]
    """float32 [D]: normalise(mean(single))."""


@dataclass(frozen=True, eq=False)
class Wordings:
    """The single sentences of all classes of a task: the ways in which each of them may be asked."""

    single_SD: NDArray[np.float64]
    """Unit vectors of the sentences."""
    ways: tuple[tuple[NDArray[np.intp], NDArray[np.intp]], ...]
    """Of each class the rows of M sentences that say it is there and of M that deny it: each sentence with each denial
    of its template. The denials of a multi-class task are empty."""


def _products(vectors_MD: NDArray[np.floating], features_SD: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the products of vectors and features, [S, M]: one study at a time, so that its bits are its own."""
    return np.matmul(vectors_MD.astype(np.float64), features_SD[:, :, None])[:, :, 0]


def encode_phrasings(model: TextEncoder, texts: Sequence[str]) -> Phrasings:
    """Encode several ways to say one thing.

    Returns:
        The unit vector of each text and the normalised mean of them. One text is its own mean; repeating all of them
        changes nothing.
    """
    single = np.asarray(model.encode_text(list(texts)), np.float32)
    return Phrasings(tuple(texts), single, ensemble(single, [0] * len(single), 1)[0].astype(np.float32))


def wordings_of(model: TextEncoder, classes: Sequence[ClassPrompts]) -> Wordings:
    """Encode the single sentences of classes; those that a model has encoded before cost nothing."""
    sentences = list(dict.fromkeys(text for c in classes for text in (*c.positive, *c.negative)))
    row = {text: n for n, text in enumerate(sentences)}
    ways = []
    for of_class in classes:
        pairs = [
            (row[plus], row[minus] if minus is not None else -1)
            for positive, negative in of_class.by_template
            for plus in positive
            for minus in (negative or (None,))
        ]
        rows_M2 = np.array(pairs, np.intp)
        ways.append((rows_M2[:, 0], rows_M2[:, 1] if of_class.negative else np.empty(0, np.intp)))
    return Wordings(np.asarray(model.encode_text(sentences), np.float64), tuple(ways))


def spread_over_wordings(
    features_SD: NDArray[np.floating],
    vectors: ClassVectors,
    wordings: Wordings,
    kind: str,
    logit_scale: float,
    calibration: Mapping[str, Any] | None = None,
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]] | None]:
    """Compute by how much logit and probability of each class change with the wording.

    One class at a time is said in single sentences; the others of a multi-class task keep their mean vectors.

    Args:
        features_SD: Mean of the unit vectors of the images of each of S studies, not normalised: its logit is the mean
            of theirs. The result of a study depends on no other.
        vectors: The class vectors that the study is scored with.
        wordings: Wordings of the same classes.
        kind: Kind of the task, a row of `TASK_KINDS`.
        logit_scale: Scale a, the model's exp(logit_scale).
        calibration: Calibration, as in `score_features`.

    Returns:
        For each class the standard deviations (of the sample, ddof 1) of logit and probability, [S] each; None for a
        class that is said in one way only.
    """
    rules = kind_named(kind)
    features = np.asarray(features_SD, np.float64)
    cosines_SK = _products(wordings.single_SD, features)
    means_SC = calibrated(_products(vectors.positive, features) * logit_scale, vectors.names, calibration)
    spreads: list[tuple[NDArray[np.float64], NDArray[np.float64]] | None] = []
    for c, (name, (plus_M, minus_M)) in enumerate(zip(vectors.names, wordings.ways, strict=True)):
        if len(plus_M) < 2:
            spreads.append(None)
            continue
        cosines_SM = np.take(cosines_SK, plus_M, axis=1)
        if len(minus_M):
            cosines_SM -= np.take(cosines_SK, minus_M, axis=1)
        logits_SM = calibrated((cosines_SM * logit_scale)[:, :, None], [name], calibration)[:, :, 0]
        others_SC = np.delete(means_SC, c, axis=1)
        chances_SM = rules.chance_of(c, logits_SM, others_SC)
        spreads.append((logits_SM.std(axis=1, ddof=1), chances_SM.std(axis=1, ddof=1)))
    return spreads


Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class InContext:
    """What is said of N images, over Y classes and Z contexts."""

    contexts_NZ: Floats
    """p(z|x)."""
    given_NYZ: Floats
    """p(y|x, z)."""
    classes_NY: Floats
    """p(y|x)."""


def in_context(
    logits_NYZ: ArrayLike, context_logits_NZ: ArrayLike | None = None, *, temperature: float = 1.0
) -> InContext:
    """Infer the context of images (which view, device or patient they show), and classify them given it.

    A prompt of each class is completed by a phrase of each context z ("chest X-ray: pneumonia, lateral view."). From
    the scaled cosines s(y, z) follow the context, p(z|x), and the class in each context, p(y|x, z); the answer is their
    sum, p(y|x) = Σ p(z|x) p(y|x, z). All in log space: at a scale of 100 and cosines of 0.9 an exponential in single
    precision overflows.

    Reference: An, Zhu et al., More context, less distraction (PerceptionCLIP), ICLR 2024.

    Args:
        logits_NYZ: Cosine of each image with the prompt of each class in each context, times the model's scale.
        context_logits_NZ: Logits with prompts of the contexts alone (class-free); None: contexts are inferred from the
            classes' prompts, summed over the classes.
        temperature: Temperature of p(z|x) alone: above 1 the inferred context is trusted less.

    Returns:
        Probabilities.

    Example:
        >>> answer = in_context([[[2.0, 0.0], [1.0, 1.0]]])
        >>> answer.contexts_NZ.round(6).tolist(), answer.classes_NY.round(6).tolist()
        ([[0.731059, 0.268941]], [[0.606776, 0.393224]])
    """
    from scipy.special import log_softmax, logsumexp

    logits = np.asarray(logits_NYZ, np.float64)
    if context_logits_NZ is None:
        evidence_NZ = np.asarray(logsumexp(logits / temperature, axis=1))
    else:
        evidence_NZ = np.asarray(context_logits_NZ, np.float64) / temperature
    log_contexts_NZ = np.asarray(log_softmax(evidence_NZ, axis=1))
    log_given_NYZ = np.asarray(log_softmax(logits, axis=1))
    log_classes_NY = np.asarray(logsumexp(log_contexts_NZ[:, None] + log_given_NYZ, axis=2))
    return InContext(np.exp(log_contexts_NZ), np.exp(log_given_NYZ), np.exp(log_classes_NY))
