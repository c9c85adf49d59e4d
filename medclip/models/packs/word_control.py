"""The word control of a figure, as results and cards keep it: what words that are not the task's own do on its images.

It is measured by `medclip.evaluation.word_control`. Only where the whole interval of the difference lies above 0, and
not all of it below `MARGIN`, do the task's own words say more than others would.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from medclip.models.packs.card_sources import ALL
from medclip.statistics.estimate import Change, Figure
from medclip.wording import capital, estimate, figure

MARGIN = 0.05
"""Difference that would matter. Where the whole interval lies below it other words do as well, however sure a smaller
difference is; where it reaches from 0 beyond it, these images are too few to say."""


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

    @property
    def apart(self) -> str:
        """How much better the set's own words do, with its interval."""
        sign = "+" if self.difference.value > 0 else ""
        return f"{sign}{estimate(self.difference.value, self.difference.low, self.difference.high)}"


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
    def others(self) -> dict[str, tuple[OtherWords, str]]:
        """Other words by what they are, each with what follows where they do as well."""
        ways = {"unrelated words": (self.unrelated, "this is not an answer to this question")}
        if self.other_findings is not None:
            ways["words of other findings"] = (self.other_findings, "it is not known which finding is answered")
        return ways

    @property
    def caution(self) -> str:
        """What must be said beside the figure; "" where the words were shown to matter."""
        than = {"unrelated words": "unrelated ones", "words of other findings": "those of other findings"}
        for what, (other, then) in self.others.items():
            if other.do_as_well:
                return f"{capital(what)} rank these images as well: {then}."
            if other.may_do_as_well:
                return f"On these images it is not shown that the words asked do better than {than[what]}."
        return ""

    @property
    def on_card(self) -> str:
        """What a run says whose task has this on the model's card; "" unless other words do as well."""
        for what, (other, then) in self.others.items():
            if other.do_as_well:
                own, value = (figure(one.value, decimals=2) for one in (self.own_words, other.figure))
                return (
                    f"{what} rank the images of the model’s card as well ({self.metric_title} {value}, with its own "
                    f"{own}): {then}"
                )
        return ""

    def listed_as(self, name: str) -> str:
        """What a task or finding is listed as whose area does not need its words; blank where it does.

        Args:
            name: The finding, or "all" for the one answer of a task.
        """
        if self.metric != "auroc" or not any(other.do_as_well for other, _ in self.others.values()):
            return ""
        return "one answer against the other, whatever their words" if name == ALL else "abnormal against normal"

    @property
    def metric_title(self) -> str:
        """Printed name of the metric."""
        return "AUROC" if self.metric == "auroc" else self.metric.replace("_", " ")

    @property
    def in_words(self) -> str:
        """The figures in half a sentence, and the caution behind it."""
        named = ((what, one) for what, (one, _) in self.others.items())
        parts = (f"{one.figure.value:.3f} with {what} (own less these {one.apart})" for what, one in named)
        own = f"{self.metric_title} {self.own_words.value:.3f} with its own words"
        return f"{', '.join([own, *parts])}. {self.caution}".rstrip()

    def lines(self) -> Iterator[str]:
        """Yield what is printed below the set's own line."""
        for what, (other, _) in self.others.items():
            yield (
                f"  words: {self.metric_title} {self.own_words.value:.3f} with its own, "
                f"{other.figure.value:.3f} with {what} ({other.num}; at most {other.most:.3f}, "
                f"“{other.most_words}”); own less these {other.apart}"
            )
        if self.caution:
            yield f"  WARNING: {self.caution[0].lower()}{self.caution[1:]}"


def control_lines(controls: Mapping[str, WordControl]) -> Iterator[str]:
    """Yield the lines of controls by finding; of a task as a whole, "all", without a name."""
    for name, control in controls.items():
        if name != ALL:
            yield f"  {name}:"
        yield from control.lines()
