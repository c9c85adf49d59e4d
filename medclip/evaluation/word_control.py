"""The word control: do the words of a question rank its images, or would any words do as well?

Against "no pneumonia" the sentence "pneumonia" may rank chest X-rays well because of the word "no", and "a happy dog"
against "no happy dog" then does the same. So a set is measured once more with words of other findings of its modality,
and with words of nothing medical, each in the sentences of that modality: against "no" before them where the set asks
whether something is there, else one phrase for each class. The figure of other words is the mean over all of them, and
the difference from it is paired over the same resamples of patients. Only where the whole interval lies above 0, and
not all of it below `MARGIN`, do the set's own words say more than others would.

The lists and draws below are fixed: nobody chooses words by the figures they give.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.evaluation.zero_shot.figures import DECIMALS, Change, Figure
from medclip.models.prototypes.class_vectors import TextEncoder, encode_prompts
from medclip.sample import Modality
from medclip.statistics.metrics.classification import HeldOut, mean_over_runs, shares_of
from medclip.statistics.resampling.resampled import difference, interval_of
from medclip.statistics.resampling.weights import draw_weights
from medclip.text.checks.closed_words import DENIALS, IMAGE_TASKS
from medclip.text.vocabulary.load import load_task, task_names
from medclip.text.vocabulary.own_words import Prompt, opposite, templates_of
from medclip.wording import estimate

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
MARGIN = 0.05
"""Difference that would matter. Where the whole interval lies below it other words do as well, however sure a smaller
difference is; where it reaches from 0 beyond it, these images are too few to say."""
NUM_DRAWS = 12
"""Ways in which phrases are dealt to the classes of a set that does not ask for presence."""


@dataclass(frozen=True)
class OtherWords:
    """What words that are not the set's own do on its images."""

    num: int
    """Phrases, or ways in which phrases were dealt to the classes."""
    figure: Figure
    """Mean over them."""
    most: float
    """The best of them."""
    most_words: str
    """Its words."""
    difference: Change
    """The set's own words less the mean of these."""

    @property
    def do_as_well(self) -> bool:
        """Whether the set's own words do better by less than would matter, if at all."""
        return self.difference.high is not None and self.difference.high < MARGIN

    @property
    def may_do_as_well(self) -> bool:
        """Whether it has not been shown that the set's own words do better."""
        return self.do_as_well or self.difference.low is None or self.difference.low <= 0


@dataclass(frozen=True)
class WordControl:
    """A set with its own words and with others."""

    metric: str
    """`auroc` of two classes, else `balanced_accuracy`."""
    num_images: int
    """Images that it is over."""
    own_words: Figure
    unrelated: OtherWords
    other_findings: OtherWords | None
    """None where the vocabulary has too few other findings of the modality."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> WordControl:
        """Read back what `dataclasses.asdict` gave."""

        def of_others(one: Mapping[str, Any] | None) -> OtherWords | None:
            figures = (
                {} if one is None else {"figure": Figure(**one["figure"]), "difference": Change(**one["difference"])}
            )
            return None if one is None else OtherWords(**{**one, **figures})

        unrelated = of_others(values["unrelated"])
        assert unrelated is not None
        return cls(
            values["metric"],
            values["num_images"],
            Figure(**values["own_words"]),
            unrelated,
            of_others(values["other_findings"]),
        )

    @property
    def caution(self) -> str:
        """What must be said beside the figure; "" where the words were shown to matter."""
        if self.unrelated.do_as_well:
            return "Unrelated words rank these images as well: this is not an answer to this question."
        if self.unrelated.may_do_as_well:
            return "On these images it is not shown that the words asked do better than unrelated ones."
        if self.other_findings is not None and self.other_findings.do_as_well:
            return "Words of other findings rank these images as well: it is not known which finding is answered."
        if self.other_findings is not None and self.other_findings.may_do_as_well:
            return "On these images it is not shown that the words asked do better than those of other findings."
        return ""

    def lines(self) -> Iterator[str]:
        """Yield what is printed below the set's own line."""
        ways = [("unrelated words", self.unrelated), ("words of other findings", self.other_findings)]
        for what, other in ways:
            if other is not None:
                apart = estimate(other.difference.value, other.difference.low, other.difference.high)
                sign = "+" if other.difference.value > 0 else ""
                yield (
                    f"  words: {self.metric.replace('_', ' ')} {self.own_words.value:.3f} with its own, "
                    f"{other.figure.value:.3f} with {what} ({other.num}; at most {other.most:.3f}, "
                    f"“{other.most_words}”); own less these {sign}{apart}"
                )
        if self.caution:
            yield f"  WARNING: {self.caution[0].lower()}{self.caution[1:]}"


def measure_word_control(
    model: TextEncoder,
    prompts: Sequence[Sequence[str]],
    features_ND: NDArray[np.floating],
    labels_N: NDArray[np.int64],
    patients: Sequence[int],
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
        patients: Number of each image's patient, from 0.
        modality: Modality whose sentences the other words are put into; None for the bare words.
        num_resamples: Number of resamples of patients.

    Returns:
        None where the figure is not defined (no image of a class), or there are more classes than unrelated phrases.
    """
    num_classes = len(prompts)
    if num_classes > len(UNRELATED) or len(set(labels_N.tolist())) < 2:
        return None
    features = np.asarray(features_ND, np.float64)
    test = HeldOut(labels_N, np.asarray(patients, np.int64), num_classes)
    weights_PB = draw_weights(test.num_patients, num_resamples, seed=0)
    metric = "auroc" if num_classes == 2 else "balanced_accuracy"
    own_NC = features @ encode_prompts(model, prompts).T.astype(np.float64)
    own = mean_over_runs(shares_of(own_NC[None], test, weights_PB, [metric])[metric])
    absent = _denying_class(prompts)

    def with_words(phrases: Sequence[str]) -> OtherWords | None:
        wordings = list(_sentences(phrases, num_classes, absent, templates_of(modality)))
        if not wordings:
            return None
        others_KNC = np.stack([features @ encode_prompts(model, sides).T.astype(np.float64) for _, sides in wordings])
        alone = shares_of(others_KNC, test, weights_PB, [metric])[metric]
        # These words are all that are asked and no sample of others, so that only patients make the interval.
        mean = replace(mean_over_runs(alone, (1, len(wordings))), runs_SI=None)
        values_K = np.mean([part.point_R for part in alone], axis=0)
        best = int(values_K.argmax())
        return OtherWords(
            num=len(wordings),
            figure=Figure.of(interval_of(mean)),
            most=round(float(values_K[best]), DECIMALS),
            most_words=wordings[best][0],
            difference=Change.of(difference(mean, own)),
        )

    unrelated = with_words(UNRELATED)
    assert unrelated is not None
    others = [] if modality is None else _other_findings(modality, prompts, of_presence=absent is not None)
    other_findings = with_words(others)
    return WordControl(metric, len(labels_N), Figure.of(interval_of(own)), unrelated, other_findings)


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


def _other_findings(modality: Modality, prompts: Sequence[Sequence[str]], *, of_presence: bool) -> list[str]:
    """Return a phrase for each class of the vocabulary's tasks of a modality that shares no word with the set's own.

    Where the set asks whether something is there, of the tasks that ask this, too.
    """
    asked = {word for sentences in prompts for text in sentences for word in _content(text)}
    phrases: dict[str, None] = {}
    for task in map(load_task, task_names()):
        is_of_findings = task.rules.independent or (not of_presence and task.name not in IMAGE_TASKS)
        if modality in task.modalities and task.has_words and is_of_findings:
            phrases.update(dict.fromkeys(of_class.prompts[0] for of_class in task.classes))
    fitting = (phrase for phrase in phrases if not asked & _content(phrase) and not DENIALS.search(phrase.lower()))
    return list(fitting)[:MOST_WORDS]


def _content(text: str) -> set[str]:
    """Return the longer words of a text, in the singular as far as an "s" makes the plural."""
    return {word.removesuffix("s") for word in re.findall(r"[a-z]{4,}", text.lower())} - _OF_SENTENCES


_OF_SENTENCES = {
    word.removesuffix("s") for word in ("image", "with", "chest", "scan", "showing", "photograph", "photo")
}
"""Words of the sentences around a finding."""
