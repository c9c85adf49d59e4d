"""What a card says of a task's figure by the sources of its images, and what must stand beside an answer to it.

A figure of one source says nothing of another: a score may know the site and not the finding. So a card has for every
task the figure within each source, across sources, and what a score of the source alone would get
(`medclip.statistics.metrics.by_source`), and one of three verdicts. A task that holds within its source only is listed
as that, and whatever shows an answer to it shows that, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medclip.wording import list_of

Verdict = Literal["holds across sources", "within its source only", "not testable across sources"]
"""Those of `medclip.statistics.metrics.by_source`; written out here, since a card is read without numpy."""
ALL = "all"
"""Key of a task whose classes are measured together."""
NO_TITLES: Mapping[str, str] = MappingProxyType({})


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


def caution_of(sources: Mapping[str, SourceFigures], name: str) -> str:
    """Return what must stand beside an answer to a class of a task.

    Args:
        sources: The task's, from its card.
        name: The class.

    Returns:
        A few words, such as "within its source only (nih_cxr)"; empty where nothing must.
    """
    figures = sources.get(name) or sources.get(ALL)
    return "" if figures is None else figures.caution


def source_sentences(
    title: str, sources: Mapping[str, SourceFigures], classes: Iterable[str], titles: Mapping[str, str] = NO_TITLES
) -> Iterator[str]:
    """Yield a sentence for the classes of a task that do not hold across sources, or one for the whole task.

    Classes that hold within the same sources share a sentence.

    Args:
        title: Printed name of the task.
        sources: The task's, from its card.
        classes: Those that are asked; of other classes nothing is said.
        titles: Printed names of classes; of others their keys.

    Example:
        >>> one = SourceFigures(verdict="within its source only", sources=("nih_cxr",))
        >>> (sentence,) = source_sentences("Findings", {"edema": one, "mass": one}, ["edema", "mass"])
        >>> sentence.partition(";")[0]
        'Findings, edema and mass: figures hold within their source only (nih_cxr)'
    """
    asked = set(classes)
    alike: dict[str, list[str]] = {}
    for name, figures in sources.items():
        if figures.caution and (name == ALL or name in asked):
            alike.setdefault(figures.caution, []).append(name)
    for caution, names in alike.items():
        named = list_of([titles.get(name, name.replace("_", " ")) for name in names])
        what = title if names == [ALL] else f"{title}, {named}"
        if len(names) == 1:
            yield f"{what}: its figure holds {caution}; elsewhere it may tell the place, not the patient."
        else:
            theirs = caution.replace("its source", "their source", 1)
            yield f"{what}: figures hold {theirs}; elsewhere they may tell the place, not the patient."
