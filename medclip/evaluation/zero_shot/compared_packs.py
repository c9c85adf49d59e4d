"""Two packs on the same images: the difference of each set's figure and of their mean, paired over patients.

Patients are drawn over all sets at once, so that one who is in several counts alike in each of them; where two sets
happen to call different patients by one name, nothing is biased: what they contribute is as independent as they are.
Images that one of the packs could not read are left out of both.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.statistics.estimate import Change, Figure
from medclip.statistics.metrics.classification import HeldOut, figures, numbered
from medclip.statistics.resampling.resampled import Resampled, difference, interval_of, mean
from medclip.statistics.resampling.weights import draw_weights
from medclip.wording import estimate, p_value

if TYPE_CHECKING:
    import pyarrow as pa

    from medclip.evaluation.zero_shot.suite import SetFile


@dataclass(frozen=True)
class ComparedFigure:
    """One figure of both packs over the same images."""

    id: str
    """The set, or "mean"."""
    metric: str
    own: Figure
    other: Figure
    difference: Change
    """Own less other."""
    num_images: int
    num_patients: int
    """Images, where the data does not say whose they are."""
    num_left_out: int
    """Images that one of the packs read and the other did not."""


@dataclass(frozen=True)
class ComparedPacks:
    """A pack beside another one."""

    model: str
    """The other pack."""
    model_version: str
    model_digest: str
    sets: tuple[ComparedFigure, ...]
    mean: ComparedFigure | None
    """Over the sets, or the means of their groups, each by its own metric; None where fewer than two have a figure."""
    num_in_training: int | None
    """Images that the other pack was trained on; None where it does not say."""
    notes: tuple[str, ...]

    def rows(self) -> tuple[ComparedFigure, ...]:
        """Return the sets, and their mean."""
        return (*self.sets, *([] if self.mean is None else [self.mean]))

    def lines(self, pack: str) -> Iterator[str]:
        """Yield a table with a line for each set; `pack` is the name of the pack that is measured.

        Where both have one name, the digest of the other heads its column.
        """
        other = f"{self.model} {self.model_version}"
        yield f"{pack} less {other}, on the same images and patients"
        if other == pack:
            other += f" ({self.model_digest[:7]})"
        metrics = [row.metric.replace("_", " ") for row in self.rows()]
        width, metric_width = max([len(row.id) for row in self.rows()] + [18]), max([*map(len, metrics), 17]) + 2
        heads = f"{pack[:22]:>24}{other[:22]:>24}"
        yield f"{'set':{width}}{'images':>8}{'metric':>{metric_width}}{heads}{'difference':>27}{'p':>9}"
        for row, metric in zip(self.rows(), metrics, strict=True):
            cells = (shown_figure(row.own), shown_figure(row.other), shown_figure(row.difference))
            yield (
                f"{row.id:{width}}{row.num_images:>8}{metric:>{metric_width}}{cells[0]:>24}{cells[1]:>24}"
                f"{cells[2]:>27}{p_value(row.difference.p):>9}"
            )
        yield from self.notes


def compare_packs(
    parts: Sequence[SetFile],
    tables: Mapping[str, pa.Table],
    other: Mapping[str, pa.Table],
    other_result: Any,
    *,
    num_resamples: int,
    by_group: bool = False,
) -> ComparedPacks:
    """Compare the predictions of two packs.

    Args:
        parts: The suite's entries of the sets that were measured.
        tables: Predictions of the pack, by set; the tables of predictions.parquet.
        other: Predictions of the other pack over the same files, by set.
        other_result: Result of the other pack.
        num_resamples: Number of resamples of patients.
        by_group: Whether groups weigh alike in the mean, and not sets.
    """
    pairs = [_pair(part, tables[part.id], other[part.id]) for part in parts]
    numbers = numbered([patient for patients, *_ in pairs for patient in patients])
    rows: list[ComparedFigure] = []
    drawn: dict[str, list[tuple[Resampled, Resampled]]] = {}
    """By what weighs alike."""
    weights_PB = draw_weights(int(numbers.max()) + 1, num_resamples, seed=0) if len(numbers) else None
    start = 0
    for part, (patients, labels_N, scores, num_left_out) in zip(parts, pairs, strict=True):
        of_set = numbers[start : start + len(patients)]
        start += len(patients)
        if weights_PB is None or not len(of_set):
            continue
        present, places = np.unique(of_set, return_inverse=True)
        test = HeldOut(labels_N, places, len(part.classes))
        both = [figures(scores_NC[None], test, weights_PB[present], [part.metric]) for scores_NC in scores]
        if part.metric not in both[0]:  # the area, where one class has no image
            continue
        mine, others = both[0][part.metric], both[1][part.metric]
        drawn.setdefault(part.group if by_group else part.id, []).append((mine, others))
        rows.append(_row(part.id, part.metric, mine, others, len(of_set), len(present), num_left_out))
    average = None
    if len(rows) > 1:
        mine, others = (mean([mean([pair[k] for pair in some]) for some in drawn.values()]) for k in (0, 1))
        metrics = " and ".join(dict.fromkeys(row.metric for row in rows))
        sums = [sum(row.num_images for row in rows), len(np.unique(numbers)), sum(row.num_left_out for row in rows)]
        average = _row("mean", metrics, mine, others, *sums)
    return ComparedPacks(
        other_result.model,
        other_result.model_version,
        other_result.model_digest,
        tuple(rows),
        average,
        other_result.num_in_training,
        tuple(_notes(other_result, rows)),
    )


def _pair(
    part: SetFile, table: pa.Table, other: pa.Table
) -> tuple[list[Hashable], NDArray[np.int64], list[NDArray[np.float64]], int]:
    """Return a set as both packs answered it: patients, labels, scores [N, C] of each pack, and rows of one alone."""
    others = {row["row"]: row["scores"] for row in other.select(["row", "scores"]).to_pylist()}
    rows = table.select(["row", "patient", "label", "scores"]).to_pylist()
    # As in the figures of one pack: whose the images are counts where it is known of every one.
    by_patient = all(row["patient"] is not None for row in rows)
    both = [row for row in rows if row["scores"] is not None and others.get(row["row"]) is not None]
    one_only = sum((row["scores"] is None) != (others.get(row["row"]) is None) for row in rows)
    scores = ([row["scores"] for row in both], [others[row["row"]] for row in both])
    return (
        [row["patient"] if by_patient else (part.id, row["row"]) for row in both],
        np.array([part.names.index(row["label"]) for row in both], np.int64),
        [np.array(side, np.float64).reshape(-1, len(part.classes)) for side in scores],
        one_only,
    )


def _row(
    name: str, metric: str, mine: Resampled, others: Resampled, num_images: int, num_patients: int, num_left_out: int
) -> ComparedFigure:
    first, other = (Figure.of(interval_of(figure)) for figure in (mine, others))
    apart = Change.of(difference(others, mine))
    return ComparedFigure(name, metric, first, other, apart, num_images, num_patients, num_left_out)


def _notes(other: Any, rows: Sequence[ComparedFigure]) -> Iterator[str]:
    left_out = sum(row.num_left_out for row in rows)
    if left_out:
        yield f"{left_out} images that only one of the packs could read are in neither's figures."
    if other.num_in_training:
        yield f"WARNING: {other.num_in_training} images are in {other.model}'s training data: it may look too good."
    elif other.num_in_training is None:
        yield f"{other.model} does not list its training files: these images may have been among them."


def shown_figure(figure: Figure | Change) -> str:
    """Write a figure or a difference with its interval."""
    return estimate(figure.value, figure.low, figure.high)
