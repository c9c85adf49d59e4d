"""The word control: do the words of a question rank its images, or would any words do as well?

Against "no pneumonia" the sentence "pneumonia" may rank chest X-rays well because of the word "no", and "a happy dog"
against "no happy dog" then does the same. So a set is measured once more with words of other findings of its modality,
and with words of nothing medical, each in the sentences of that modality: against "no" before them where the set asks
whether something is there, else one phrase for each class. The figure of other words is the mean over all of them, and
the difference from it is paired over the same resamples of patients (`medclip.models.packs.word_control`).

The lists and draws below are fixed: nobody chooses words by the figures they give.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.class_text import ClassText
from medclip.models.packs.card_sources import ALL
from medclip.models.packs.word_control import OtherWords, WordControl
from medclip.models.prototypes.class_vectors import TextEncoder, encode_prompts
from medclip.sample import Modality
from medclip.statistics.estimate import DECIMALS, NUM_RESAMPLES, Change, Figure
from medclip.statistics.metrics.by_source import joined
from medclip.statistics.metrics.classification import HeldOut, Shares, mean_over_runs, numbered, shares_of
from medclip.statistics.resampling.resampled import difference, interval_of
from medclip.statistics.resampling.weights import draw_weights
from medclip.text.checks.closed_words import DENIALS
from medclip.text.vocabulary.own_words import Prompt, opposite, other_findings, templates_of

UNRELATED = (
    "a happy dog",
    "a red car",
    "a bowl of soup",
    "a wooden chair",
    "a football match",
    "a mountain lake",
    "a birthday cake",
    "an old guitar",
    "a train station",
    "a sleeping cat",
    "a pair of shoes",
    "a city at night",
    "a field of wheat",
    "a glass of wine",
    "a paper boat",
    "a yellow umbrella",
    "a brick wall",
    "a flock of birds",
    "a kitchen table",
    "a sandy beach",
    "a stack of books",
    "a garden fence",
    "a bicycle race",
    "a snowy forest",
)
"""Words of nothing medical."""
MOST_WORDS = len(UNRELATED)
"""Phrases of other findings that are asked at most."""
NUM_DRAWS = 12
"""Ways in which phrases are dealt to the classes of a set that does not ask for presence."""


@dataclass(frozen=True)
class Wordings:
    """The other words that a set of C classes is asked with, K ways in all: unrelated ones first."""

    names: tuple[str, ...]
    sides: tuple[tuple[tuple[str, ...], ...], ...]
    """Of each way the sentences of each class."""
    num_unrelated: int

    def scores(self, model: TextEncoder, features_ND: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the cosine of each image with each class by each way, float32 [N, K, C]."""
        flat = encode_prompts(model, [sentences for way in self.sides for sentences in way])
        scores_NX = np.asarray(features_ND, np.float64) @ flat.T.astype(np.float64)
        return scores_NX.reshape(len(scores_NX), len(self.sides), len(self.sides[0])).astype(np.float32)


def other_wordings(prompts: Sequence[Sequence[str]], modality: Modality | None) -> Wordings | None:
    """Return the other words that a set is asked with; None where it has more classes than there are phrases.

    Args:
        prompts: The set's own sentences of each class.
        modality: Modality whose sentences the other words are put into; None for the bare words.
    """
    if len(prompts) > len(UNRELATED):
        return None
    absent = _denying_class(prompts)
    is_of_presence = absent is not None
    others = [] if modality is None else other_findings(modality, prompts, of_presence=is_of_presence)[:MOST_WORDS]
    unrelated, findings = (
        list(_sentences(phrases, len(prompts), absent, templates_of(modality))) for phrases in (UNRELATED, others)
    )
    names, sides = zip(*unrelated, *findings, strict=True)
    return Wordings(names, tuple(map(tuple, sides)), len(unrelated))


def compare_words(
    own_NC: NDArray[np.floating],
    others_NKC: NDArray[np.floating],
    wordings: Wordings,
    labels_N: NDArray[np.int64],
    patients: Sequence[Hashable],
    *,
    sources: Sequence[str] = (),
    num_resamples: int = NUM_RESAMPLES,
) -> WordControl | None:
    """Compare the scores that a set gets by its own words with those by others.

    Args:
        own_NC: Scores of each image by the set's own words.
        others_NKC: Scores by each of the wordings.
        wordings: The wordings.
        labels_N: Class indices.
        patients: Patient of each image.
        sources: Source of each image, where there are several: areas are then of pairs within a source.
        num_resamples: Number of resamples of patients.

    Returns:
        None where the figure is not defined, since no image of a class is there.
    """
    if len(set(labels_N.tolist())) < 2:
        return None
    metric = "auroc" if own_NC.shape[1] == 2 else "balanced_accuracy"
    test = HeldOut(np.asarray(labels_N, np.int64), numbered(patients), own_NC.shape[1])
    weights_PB = draw_weights(test.num_patients, num_resamples, seed=0)

    def of_ways(scores_RNC: NDArray[np.floating]) -> list[Shares]:
        if metric == "auroc" and len(set(sources)) > 1:
            return _within_sources(scores_RNC, test, weights_PB, np.asarray(sources, object))
        return list(shares_of(scores_RNC, test, weights_PB, [metric])[metric])

    of_own = of_ways(np.asarray(own_NC, np.float64)[None])
    if not of_own:
        return None
    own = mean_over_runs(of_own)

    def of_others(first: int, last: int) -> OtherWords | None:
        if first == last:
            return None
        alone = of_ways(np.asarray(others_NKC[:, first:last], np.float64).swapaxes(0, 1))
        # These words are all that are asked and no sample of others, so that only patients make the interval.
        mean = replace(mean_over_runs(alone, (1, last - first)), runs_SI=None)
        values_K = np.mean([part.point_R for part in alone], axis=0)
        best = int(values_K.argmax())
        return OtherWords(
            num=last - first,
            figure=Figure.of(interval_of(mean)),
            most=round(float(values_K[best]), DECIMALS),
            most_words=wordings.names[first + best],
            difference=Change.of(difference(mean, own)),
        )

    unrelated = of_others(0, wordings.num_unrelated)
    assert unrelated is not None
    findings = of_others(wordings.num_unrelated, others_NKC.shape[1])
    return WordControl(metric, len(labels_N), Figure.of(interval_of(own)), unrelated, findings)


def _within_sources(
    scores_RNC: NDArray[np.floating], test: HeldOut, weights_PB: NDArray[np.integer], sources_N: NDArray[Any]
) -> list[Shares]:
    """Return the area of all pairs within a source; empty where none has both sides."""
    once_P1 = np.ones((len(weights_PB), 1))
    weights = np.concatenate([once_P1, weights_PB], axis=1, dtype=np.float64)
    areas: list[Shares] = []
    pairs: list[NDArray[np.float64]] = []
    for source in sorted(set(sources_N.tolist())):
        rows = np.flatnonzero(sources_N == source)
        inside = HeldOut(test.targets[rows], test.patients[rows], test.num_classes)
        of_source = shares_of(scores_RNC[:, rows], inside, weights_PB, ["auroc"]).get("auroc")
        if of_source:
            areas += of_source
            whose = [inside.patients[side] for side in inside.sides(1)]
            counts = [np.bincount(patients, minlength=len(weights)) @ weights for patients in whose]
            pairs.append(counts[0] * counts[1])
    if not areas:
        return []
    points_SR, drawn_SRB = np.stack([a.point_R for a in areas]), np.stack([a.drawn_RB for a in areas])
    of_ways = [joined(points_SR[:, r], drawn_SRB[:, r], np.stack(pairs)) for r in range(len(scores_RNC))]
    sides = [a.pairs for a in areas if a.pairs is not None]
    return [
        Shares(
            np.array([point for point, _ in of_ways]),
            np.stack([drawn_B for _, drawn_B in of_ways]),
            np.sum([a.cases_R for a in areas], axis=0),
            sum(a.patients for a in areas),
            (sum(positive for positive, _ in sides), sum(negative for _, negative in sides)),
        )
    ]


def measure_word_control(
    model: TextEncoder,
    prompts: Sequence[Sequence[str]],
    features_ND: NDArray[np.floating],
    labels_N: NDArray[np.int64],
    patients: Sequence[Hashable],
    modality: Modality | None,
    *,
    num_resamples: int,
) -> WordControl | None:
    """Measure a set with its own words, with those of other findings, and with those of nothing medical.

    Args:
        model: Text encoder of the sentences.
        prompts: The sentences of each class.
        features_ND: Mean over the views of each image, float [N, D], not normalised.
        labels_N: Class indices.
        patients: Patient of each image.
        modality: Modality whose sentences the other words are put into; None for the bare words.
        num_resamples: Number of resamples of patients.

    Returns:
        None where the figure is not defined (no image of a class), or there are more classes than unrelated phrases.
    """
    wordings = other_wordings(prompts, modality)
    if wordings is None or len(set(labels_N.tolist())) < 2:
        return None
    features = np.asarray(features_ND, np.float64)
    own_NC = features @ encode_prompts(model, prompts).T.astype(np.float64)
    others_NKC = wordings.scores(model, features)
    return compare_words(own_NC, others_NKC, wordings, labels_N, patients, num_resamples=num_resamples)


def measure_task_words(
    model: TextEncoder,
    text: ClassText,
    features_ND: NDArray[np.floating],
    targets: NDArray,
    patients: Sequence[Hashable],
    modality: Modality | None,
    *,
    num_resamples: int,
) -> dict[str, WordControl]:
    """Measure the words of a task, or of each of its findings.

    Args:
        model: Text encoder of the sentences.
        text: Classes and their sentences.
        features_ND: Mean over the views of each image, float [N, D].
        targets: Class indices [N]; of findings 1, 0 and NaN, [N, C].
        patients: Patient of each image.
        modality: Modality whose sentences the other words are put into; None for the bare words.
        num_resamples: Number of resamples of patients.

    Returns:
        By finding, or under "all" for a task with one answer; without those that are not defined.
    """
    positive, sets = text.positive(), {}
    if text.rules.independent:
        for c, (name, denied) in enumerate(zip(text.names, text.negative(), strict=True)):
            sets[name] = ((denied, positive[c]), targets[:, c])
    else:
        sets[ALL] = (positive, targets)
    controls = {}
    for name, (prompts, labels_N) in sets.items():
        rows = np.flatnonzero(~np.isnan(labels_N))
        control = measure_word_control(
            model,
            prompts,
            features_ND[rows],
            labels_N[rows].astype(np.int64),
            [patients[i] for i in rows.tolist()],
            modality,
            num_resamples=num_resamples,
        )
        controls |= {} if control is None else {name: control}
    return controls


def _denying_class(prompts: Sequence[Sequence[str]]) -> int | None:
    """Return which of two classes is said by denying the other; None where neither or both are."""
    denies = [any(DENIALS.search(text.lower()) for text in sentences) for sentences in prompts]
    return denies.index(True) if len(denies) == 2 and sum(denies) == 1 else None


def _sentences(
    phrases: Sequence[str], num_classes: int, absent: int | None, templates: Sequence[str]
) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Yield words, and the sentences of each class that are made of them."""
    bare = [Prompt(phrase, (phrase,), (opposite(phrase),)).sentences(templates) for phrase in phrases]
    if absent is not None:
        for one in bare:
            yield one.name, [one.negative, one.positive] if absent == 0 else [one.positive, one.negative]
        return
    rng = np.random.default_rng(0)
    for _ in range(NUM_DRAWS if len(bare) >= num_classes else 0):
        dealt = [bare[place] for place in rng.permutation(len(bare))[:num_classes]]
        yield " | ".join(one.name for one in dealt), [one.positive for one in dealt]
