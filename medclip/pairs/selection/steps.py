"""Steps of a selection: what each is handed, and what it answers. One row of `FILTERS` each; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from medclip.progress import Progress, Silent
from medclip.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medclip.files.tables.table import TextForm


class FilterSettings(BaseModel):
    """What a step is asked; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def places(self) -> Iterable[str | Path]:
        """Return files and folders, relative to the steps, that must be there before the first step runs."""
        return ()

    def packs(self) -> Iterable[str]:
        """Return packs, by name or folder, that must be there before the first step runs."""
        return ()


@dataclass(frozen=True)
class Context:
    """What steps share beside the pile."""

    seed: int
    folder: Path
    """Folder that relative paths of the steps are relative to."""
    settings: Settings
    progress: Progress = field(default_factory=Silent)
    form: TextForm | None = None
    """How tables of text were written, where the user says so."""

    def rng(self, name: str, number: int) -> np.random.Generator:
        """Return the chance of a step: it depends on the seed, the name of the step and its place alone."""
        from numpy.random import default_rng

        return default_rng([self.seed, number, *name.encode()])


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a step says of M rows."""

    kept_M: NDArray[np.bool_]
    value_M: NDArray[np.float64] | None = None
    """What it measured; NaN where it measured nothing."""
    weight_M: NDArray[np.float64] | None = None
    """Finite, 0 and more; 1 where None."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the page and the report say of the step, as plain values of JSON."""
    notes: tuple[str, ...] = ()
    """Sentences for the user; cautions among them."""


@dataclass(frozen=True)
class Filter:
    """One row of the table."""

    about: str
    """What it keeps, in a few words."""
    settings: str
    """module:class of its settings, a `FilterSettings`."""
    target: str
    """module:function, (pile, rows_M int64, settings, context, number of the step) -> Verdict: of the rows of a `Pile`
    that earlier steps kept, in order."""
    opens_images: bool = False


FILTERS: dict[str, Filter] = {
    "basic": Filter(
        "captions of some words and images of some size",
        "medclip.pairs.selection.basic:BasicSettings",
        "medclip.pairs.selection.basic:basic",
        opens_images=True,
    ),
    "cap": Filter(
        "at most so many pairs of a patient, or of a patient and concept",
        "medclip.pairs.selection.cap:CapSettings",
        "medclip.pairs.selection.cap:cap",
    ),
    "concept": Filter(
        "pairs whose image shows what is wanted, by a table of labels",
        "medclip.pairs.selection.concept:ConceptSettings",
        "medclip.pairs.selection.concept:concept",
    ),
    "text": Filter(
        "texts that name something of a list of concepts",
        "medclip.pairs.selection.text:TextSettings",
        "medclip.pairs.selection.text:names_an_entry",
    ),
    "balance": Filter(
        "texts by how rare the concepts are that they name (MetaCLIP)",
        "medclip.pairs.selection.balance:BalanceSettings",
        "medclip.pairs.selection.balance:balance",
    ),
    "rebalance": Filter(
        "texts that several views call rare: words, concepts, pairs of them, questions (ADR)",
        "medclip.pairs.selection.rebalance:RebalanceSettings",
        "medclip.pairs.selection.rebalance:rebalance",
    ),
    "deduplicate": Filter(
        "one of several pairs with one image, and none with an image or a patient of evaluation",
        "medclip.pairs.selection.deduplicate:DeduplicateSettings",
        "medclip.pairs.selection.deduplicate:deduplicate",
        opens_images=True,
    ),
    "clip_score": Filter(
        "pairs whose image and words a pack finds alike, by a threshold or as a share",
        "medclip.pairs.selection.clip_score:ClipScoreSettings",
        "medclip.pairs.selection.clip_score:clip_score",
        opens_images=True,
    ),
    "image": Filter(
        "pairs whose image lies where images of a target's training split lie",
        "medclip.pairs.selection.image:ImageSettings",
        "medclip.pairs.selection.image:image",
        opens_images=True,
    ),
}
"""Names, as select.yaml has them. A new step is one file and one line here."""
