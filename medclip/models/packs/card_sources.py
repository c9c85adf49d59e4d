"""What a card says of a task's figure by the sources of its images, and what must stand beside an answer to it.

A figure of one source says nothing of another: a score may know the site and not the finding. So a card has for every
task the figure within each source, across sources, and what a score of the source alone would get
(`medclip.statistics.metrics.by_source`), and one of three verdicts. A task that holds within its source only is listed
as that, and whatever shows an answer to it shows that, too, with the figure within that source: the one over all
sources is neither of its source nor of anybody else's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medclip.wording import count, estimate, list_of

Verdict = Literal["holds across sources", "within its source only", "not testable across sources"]
"""Those of `medclip.statistics.metrics.by_source`; written out here, since a card is read without numpy."""
ALL = "all"
"""Key of a task whose classes are measured together."""
METRIC_TITLES: Mapping[str, str] = MappingProxyType(
    {
        "auroc": "AUROC",
        "macro_auroc": "AUROC, mean over classes",
        "balanced_accuracy": "balanced accuracy",
        "dice": "Dice",
        "iou": "IoU",
        "lesion_sensitivity": "lesions hit",
        "false_alarms": "images with a wrong piece",
    }
)
"""Printed names of a card's metrics; of others their keys."""
NO_TITLES: Mapping[str, str] = MappingProxyType({})
NO_METRICS: Mapping[str, Any] = MappingProxyType({})
OWN = ("adapted", "zero_shot", "model", "medclip")
"""How a card names this model among its rivals."""
_MOST_NAMED = 4
"""Sources that a remark names, and classes whose figures a sentence has; of more it says how many."""


class SourceFigures(BaseModel):
    """One task, or one finding of a task, by the sources of its images."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    verdict: Verdict
    sources: tuple[str, ...] = Field(min_length=1)
    """Those that it was measured within, by their names among the card's data."""
    figures: dict[str, Any] = Field(default_factory=dict)
    """By what they are of: "pooled", "within nih_cxr", "positives of nih_cxr, negatives of covid_cxr", "source alone"
    and so on, as `BySource.figures` returns them."""

    @model_validator(mode="after")
    def _check(self) -> SourceFigures:
        if faulty := [name for name, figure in self.figures.items() if "value" not in figure]:
            raise ValueError(f"{faulty[0]!r} is not a figure")
        return self

    @property
    def caution(self) -> str:
        """What must stand beside an answer; empty where nothing must.

        Example:
            >>> SourceFigures(verdict="within its source only", sources=("nih_cxr",)).caution
            'within its source only (nih_cxr)'
        """
        if self.verdict != "within its source only":
            return ""
        return f"within its source{'s' if len(self.sources) > 1 else ''} only ({list_of(self.sources, last='and')})"

    @property
    def measured_at(self) -> tuple[str, ...]:
        """Every source that there is a figure of: also those within which it does not hold."""
        within = (name.removeprefix("within ") for name in self.figures if name.startswith("within "))
        return tuple(sorted({*self.sources, *within} - {"sources"}))

    @property
    def remark(self) -> str:
        """What may stand beside an answer that nobody has asked across sources; empty where somebody has.

        It is no caution: nothing is known against the answer, and no more for it than its figure says.

        Example:
            >>> SourceFigures(verdict="not testable across sources", sources=("csdi_fundus",)).remark
            'measured at one source (csdi_fundus)'
            >>> SourceFigures(verdict="not testable across sources", sources=("medpix2", "vqa_rad")).remark
            'not testable across its sources (medpix2 and vqa_rad)'
        """
        if self.verdict != "not testable across sources":
            return ""
        names = self.measured_at
        if len(names) == 1:
            return f"measured at one source ({names[0]})"
        named = list_of(names) if len(names) <= _MOST_NAMED else f"{len(names)} sets"
        return f"not testable across its sources ({named})"

    @property
    def named(self) -> tuple[str, ...]:
        """The sources that the verdict is of: every one that it was measured at where none could be tested."""
        return self.measured_at if self.verdict == "not testable across sources" else self.sources

    @property
    def in_words(self) -> str:
        """The verdict with the sources that it is of.

        Example:
            >>> SourceFigures(verdict="not testable across sources", sources=("csdi_fundus",)).in_words
            'not testable across sources (csdi_fundus)'
        """
        return self.caution or f"{self.verdict} ({list_of(self.named)})"

    @property
    def printed(self) -> dict[str, Any]:
        """The figures that are printed: none across sources where these show nothing, as two parts of one origin."""
        if self.verdict != "not testable across sources":
            return self.figures
        return {name: one for name, one in self.figures.items() if not name.startswith(("across ", "positives of "))}


@dataclass(frozen=True)
class WithinFigure:
    """What was measured within one source, or over all of them."""

    source: str
    """Empty where it is over all sources of a task that no caution is about."""
    metric: str
    """Its key: "auroc", "balanced_accuracy"."""
    figure: Mapping[str, Any]
    """With value, low, high, chance and num_patients, as the card has it."""

    @property
    def in_words(self) -> str:
        """The figure with its interval and chance, where it is of, and over how many patients, where that is known.

        Example:
            >>> one = WithinFigure("nih_cxr", "auroc", {"value": 0.86, "low": 0.78, "high": 0.92, "num_patients": 118})
            >>> one.in_words
            'AUROC 0.86 (0.78 to 0.92) within nih_cxr, 118 patients'
        """
        value = estimate(self.figure["value"], self.figure.get("low"), self.figure.get("high"), decimals=2)
        value = beside_chance(value, METRIC_TITLES.get(self.metric, self.metric), self.figure.get("chance"))
        patients = self.figure.get("num_patients")
        over = "" if patients is None else f", {count(patients, 'patient')}"
        return f"{METRIC_TITLES.get(self.metric, self.metric)} {value}{self._where}{over}"

    @property
    def _where(self) -> str:
        if self.source:
            return f" within {self.source}"
        return " on unseen images" if self.figure.get("num_patients") is None else " on unseen patients"

    def facts(self) -> dict[str, Any]:
        """Return it as plain values, with what a person reads."""
        names = ("value", "low", "high", "chance", "num_patients")
        numbers = {name: self.figure.get(name) for name in names}
        return {"metric": self.metric, "source": self.source or None, **numbers, "in_words": self.in_words}


def beside_chance(estimated: str, metric: str, chance: Any) -> str:
    """Write what chance gives behind a figure; not where the card does not know, and not of an area, half of which is.

    Args:
        estimated: The figure, with its interval where it has one.
        metric: Printed name of the metric.
        chance: Figure that chance gives; None where nobody said.

    Example:
        >>> beside_chance("0.53 (0.46 to 0.60)", "balanced accuracy", 1 / 3), beside_chance("0.86", "AUROC", 0.5)
        ('0.53 (0.46 to 0.60; chance 0.33)', '0.86')
    """
    if chance is None or (metric.startswith("AUROC") and chance == 0.5):
        return estimated
    of_chance = f"chance {chance:.2f}"
    return f"{estimated[:-1]}; {of_chance})" if estimated.endswith(")") else f"{estimated} ({of_chance})"


def within_figures(
    metrics: Mapping[str, Any], sources: Mapping[str, SourceFigures], name: str
) -> tuple[WithinFigure, ...]:
    """Return the figures of a class within the sources that its caution names.

    Of the first metric of the task where the card has that within a source ("zero_shot_cdd_cesm_only"), else the area
    under the ROC curve among the figures by source.

    Args:
        metrics: Metrics of the task, from its card.
        sources: Source figures of the task, from its card.
        name: The class.

    Returns:
        One for each source, in their order. None where no caution must stand beside an answer, or the card has none.
    """
    by_source = sources.get(name) or sources.get(ALL)
    if by_source is None or not by_source.caution:
        return ()
    metric, node = next(iter(metrics.items()), ("", {}))
    of_class = node.get(name, node)
    figures = []
    for source in by_source.sources:
        if alone := of_class.get(f"zero_shot_{source}_only"):
            figures.append(WithinFigure(source, metric, alone))
        elif within := by_source.figures.get(f"within {source}"):
            figures.append(WithinFigure(source, "auroc" if name in sources and name != ALL else "macro_auroc", within))
    return tuple(figures)


def class_figures(
    metrics: Mapping[str, Any], sources: Mapping[str, SourceFigures], name: str
) -> tuple[WithinFigure, ...]:
    """Return what a card says of how good the answers to a class of a task are.

    Those within the sources that a caution names; where none is, the first figure of the task, of the class where the
    card has it by class.

    Args:
        metrics: Metrics of the task, from its card.
        sources: Source figures of the task, from its card.
        name: The class.

    Returns:
        Empty where the card has no figure.

    Example:
        >>> one = {"zero_shot": {"value": 0.98, "low": 0.84, "high": 1.0, "num_patients": None}}
        >>> [figure.in_words for figure in class_figures({"auroc": {"cataract": one}}, {}, "cataract")]
        ['AUROC 0.98 (0.84 to 1.00) on unseen images']
    """
    if caution_of(sources, name):
        return within_figures(metrics, sources, name)
    metric, node = next(iter(metrics.items()), ("", {}))
    of_class = node.get(name, node)
    figure = of_class if "value" in of_class else next((of_class[key] for key in OWN if key in of_class), {})
    return (WithinFigure("", metric, figure),) if "value" in figure else ()


def caution_of(sources: Mapping[str, SourceFigures], name: str) -> str:
    """Return what must stand beside an answer to a class of a task.

    Args:
        sources: Source figures of the task, from its card.
        name: The class.

    Returns:
        A few words, such as "within its source only (nih_cxr)"; empty where nothing must.
    """
    figures = sources.get(name) or sources.get(ALL)
    return "" if figures is None else figures.caution


def remark_of(sources: Mapping[str, SourceFigures], name: str) -> str:
    """Return what may stand beside an answer to a class of a task, such as "measured at one source (csdi_fundus)"."""
    figures = sources.get(name) or sources.get(ALL)
    return "" if figures is None else figures.remark


def why_unmeasured(note: str) -> str:
    """Return what stands beside an answer to a task without figures: the first sentence of its note on the card.

    Example:
        >>> why_unmeasured("Not measured after merging."), why_unmeasured("")
        ('Not measured after merging', 'no figures in the model’s card')
    """
    return note.partition(". ")[0].rstrip(".") or "no figures in the model’s card"


def measured_of(card: Any, task: str) -> Mapping[str, Any]:
    """Return the figures of a card's task; where it has none, those on the split of the run that trained the pack."""
    held_out = {} if card.held_out is None else card.held_out.figures
    return card.tasks[task].metrics or held_out.get(task, {})


def source_sentences(
    title: str,
    sources: Mapping[str, SourceFigures],
    classes: Iterable[str],
    titles: Mapping[str, str] = NO_TITLES,
    metrics: Mapping[str, Any] = NO_METRICS,
) -> Iterator[str]:
    """Yield two sentences for the classes of a task that do not hold across sources, or for the whole task.

    Classes that hold within the same sources share them.

    Args:
        title: Printed name of the task.
        sources: Source figures of the task, from its card.
        classes: Classes that are asked; of other classes nothing is said.
        titles: Printed names of classes; of others their keys.
        metrics: Metrics of the task, from its card: what was measured within the sources stands in the sentence.

    Example:
        >>> one = SourceFigures(verdict="within its source only", sources=("nih_cxr",))
        >>> (sentence,) = source_sentences("Findings", {"edema": one, "mass": one}, ["edema", "mass"])
        >>> sentence.partition(".")[0]
        'Findings, edema and mass: figures hold within their source only (nih_cxr)'
    """
    wanted = set(classes)
    alike: dict[str, list[str]] = {}
    for name, figures in sources.items():
        if figures.caution and (name == ALL or name in wanted):
            alike.setdefault(figures.caution, []).append(name)
    for caution, names in alike.items():
        printed = {name: titles.get(name, name.replace("_", " ")) for name in names}
        what = title if names == [ALL] else f"{title}, {list_of(list(printed.values()))}"
        of = [(printed[name] if len(names) > 1 else "", within_figures(metrics, sources, name)) for name in names]
        held = f"its figure holds {caution}"
        if len(names) > 1:
            held = f"figures hold {caution.replace('its source', 'their source', 1)}"
        they = "it" if len(names) == 1 else "they"
        yield f"{what}: {held}{measured_within(of)}. Elsewhere {they} may tell the place, not the patient."


def measured_within(of: Iterable[tuple[str, Sequence[WithinFigure]]]) -> str:
    """Return what follows a caution: what was measured within the sources that it names.

    Args:
        of: Printed name of a class, empty for the only one, and its figures.

    Returns:
        A colon and the figures of the first few classes; empty where there is none.

    Example:
        >>> one = WithinFigure("nih_cxr", "auroc", {"value": 0.86, "low": 0.78, "high": 0.92, "num_patients": 118})
        >>> measured_within([("", [one])]), measured_within([("Edema", [])])
        (': AUROC 0.86 (0.78 to 0.92) within nih_cxr, 118 patients', '')
    """
    figures = [f"{name} {list_of([one.in_words for one in within])}".strip() for name, within in of if within]
    more = [f"those of {len(figures) - _MOST_NAMED} more are on the model’s card"] * (len(figures) > _MOST_NAMED)
    return f": {'; '.join([*figures[:_MOST_NAMED], *more])}" if figures else ""
