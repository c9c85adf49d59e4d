"""A pack that was made of others: what chooses a greedy soup, and what is measured of the merged pack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason
from medclip.models.merging.ingredients import Ingredient, Plan, Tried
from medclip.models.merging.merges import MERGES
from medclip.progress import Progress
from medclip.result import Result
from medclip.wording import count, figure, list_of

if TYPE_CHECKING:
    from torch import nn

    from medclip.models.model import Model
    from medclip.models.packs.card import SplitFigures
    from medclip.shards.reading.samples import ShardReader

FEWEST_IMAGES = 500
"""Held-out images below which a soup may be chosen by chance."""
BASIN = 0.02
"""Where the midpoint lies so far below the lower end, the ends are in different basins."""
_FEW_RESAMPLES = 20
"""Of figures whose interval nobody sees."""
_TEST = "test"
_WITHIN, _OVER = "macro_auroc_within", "macro_auroc"


@dataclass(frozen=True, eq=False, repr=False)
class MergedPack(Result):
    """A pack that was made of others."""

    path: Path
    """Its folder."""
    name: str
    method: str
    packs: tuple[str, ...]
    """Names and versions of the packs whose training is in it."""
    tried: tuple[Tried, ...] = ()
    """Of a greedy soup: what became of each pack but the best."""
    figure: float | None = None
    """Of a greedy soup, on the data that chose it; no figure of the pack."""
    held_out: SplitFigures | None = None
    """What was measured after merging, on patients that took no part in it; None where no shards were given."""
    notes: tuple[str, ...] = ()

    def _facts(self) -> Mapping[str, object]:
        chosen = {} if self.figure is None else {"chosen at": figure(self.figure, decimals=3)}
        return {
            "name": self.name,
            "method": MERGES[self.method].title,
            "packs": list_of(self.packs),
            **chosen,
            "measured": "not" if self.held_out is None else f"on {count(self.held_out.num_images, 'image')}",
            "notes": " ".join(self.notes),
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [] if self.held_out is None else self.held_out.rows()[:most]


class HeldOut:
    """Measures candidates on one split of shards, and the merged pack on another."""

    def __init__(
        self, plan: Plan, shards: list[Path], val_split: str, test_split: str | None, device: str, progress: Progress
    ) -> None:
        from medclip.models.packs.card import training_hashes, training_patients
        from medclip.shards.folder import read_index
        from medclip.shards.reading.samples import no_split

        indexes = [read_index(place) for place in shards]
        if test_split is not None and not any(test_split in index["counts"]["by_split"] for index in indexes):
            if shards and test_split != _TEST:
                raise no_split(test_split, shards[0], indexes)
            test_split = None

        self._plan, self._shards, self._device, self._progress = plan, shards, device, progress
        self._val_split, self._test_split = val_split, test_split
        lists = [read(one.path, one.card) for one in plan.every for read in (training_hashes, training_patients)]
        self._seen = frozenset().union(*(one for one in lists if one))
        self._chosen_with: frozenset[str] = frozenset()
        self._num_chosen_with = 0
        self._first: Model | None = None

    def figure(self, one: Ingredient, towers: nn.Module) -> float:
        """Return the mean area of a candidate over the tasks of the split that a soup is chosen on."""
        from medclip.models.packs.pack import load_model

        self._first = self._first or load_model(one.path, device=self._device, verify=False)
        figures = self._measured(self._first.with_towers(towers), self._val_split, self._seen, _FEW_RESAMPLES)
        self._num_chosen_with = figures.num_images
        return merit(figures)

    def measure(self, pack: Path, num_resamples: int) -> SplitFigures | None:
        """Measure the merged pack on the test split, and write the figures on its card; None where there is none."""
        from medclip.models.merging.merge import with_figures
        from medclip.models.packs.pack import load_model, pack_card, update_pack

        if self._test_split is None:
            return None
        model = load_model(pack, device=self._device, verify=False)
        figures = self._measured(model, self._test_split, self._seen | self._chosen_with, num_resamples)
        update_pack(pack, card=with_figures(pack_card(pack), figures))
        return figures

    def notes(self, trace: Sequence[Tried]) -> tuple[str, ...]:
        """Return what must be known of how a greedy soup was chosen."""
        notes = []
        if trace and self._num_chosen_with < FEWEST_IMAGES:
            notes.append(
                f"The soup was chosen on {count(self._num_chosen_with, 'image')}: with fewer than {FEWEST_IMAGES} "
                "chance decides."
            )
        apart = [one.name for one in trace if one.midpoint is not None and one.alone - one.midpoint > BASIN]
        if apart:
            notes.append(
                f"Halfway between the best pack and {list_of(apart)} figures are worse than at both ends: they lie in "
                "different basins, and no average with them is of use."
            )
        return tuple(notes)

    def _measured(self, model: Model, split: str, seen: frozenset[str], num_resamples: int) -> SplitFigures:
        from medclip.evaluation.shard_split import measure_split
        from medclip.shards.reading.samples import ShardReader
        from medclip.training.batches.samples import Drawing

        with ShardReader(self._shards, split) as reader:
            if split == self._val_split:
                self._chosen_with = _of_split(reader)
            drawing = Drawing(model.preprocess, 0, None, 0.0, 0.0, words=model.has_text)
            return measure_split(
                model, reader, drawing, seen=seen, num_resamples=num_resamples, progress=self._progress
            )


def merit(figures: SplitFigures) -> float:
    """Return the mean area over tasks; within sources where there are several, or telling them apart would pass for it.

    Raises:
        MedclipError: NOTHING_TO_DO where no task has an area.
    """
    areas = []
    for metrics in figures.figures.values():
        within = metrics.get(_WITHIN)
        if within:
            areas.append(sum(one["value"] for one in within.values()) / len(within))
        elif _OVER in metrics:
            areas.append(metrics[_OVER]["value"])
    if not areas:
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            f"no task of the split {figures.split!r} could be measured.",
            hint="A greedy soup is chosen on labelled images, with enough patients of more than one answer.",
        )
    return sum(areas) / len(areas)


def _of_split(reader: ShardReader) -> frozenset[str]:
    """Return the hashes of a split's files and patients."""
    return frozenset(key for row in reader.provenance() for key in (*row["files"], row["patient"]) if key)
