"""Masks that a model marked, in every group: beside the true ones, beside position alone and Otsu's threshold.

Overlap has the interval of a bounded mean, shares that of every share, and a mean distance that of its logarithm, all
over resamples of patients. A group minus all others is value ± t · SE and tested; all of a model are one family. The
rivals are paired with the model on the same images: the mean mask of other patients, which sees no image, and Otsu's
threshold, which was never taught, on the side (dark or light) that has the better mean Dice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.disclosure import FEW_CASES, CellState, Roundings, hidden, roundings
from medclip.auditing.groups.differences import REST
from medclip.auditing.groups.measure import Row, adjust, exported, rounded_values, short
from medclip.auditing.input.masks import ComparedMasks, compare_masks
from medclip.auditing.options import MeasureOptions
from medclip.errors import MedclipError
from medclip.files.readers.pool import ReadingPool
from medclip.progress import Progress
from medclip.settings import Settings
from medclip.statistics.cohort import Cohort, Label, Masks, cell_rows
from medclip.statistics.estimate import Estimate
from medclip.statistics.metrics.masks import DISTANCES, TITLES, mask_estimate, mask_mean, position_dices
from medclip.statistics.resampling.resampled import Resampled, change, combination, difference
from medclip.wording import by_reason, count, list_of

Floats = NDArray[np.float64]
POSITION, OTSU = "mean mask", "otsu"
"""What the model is measured beside."""
COMPARED = ("dice", "lesion_sensitivity", "false_alarms")
"""Figures of which each group is tested against all others."""
_MOST_NAMED = 5
_MOST_COVERED = 0.9


def mask_rows(
    model: str,
    cohort: Cohort,
    folder: Path,
    weights_PB: NDArray[Any],
    options: MeasureOptions,
    settings: Settings,
    progress: Progress,
) -> tuple[list[Row], list[str]]:
    """Return the table `masks`: each figure of each structure in each group, then rivals and differences; and notes.

    Args:
        model: Name of the model.
        cohort: The audit set, with masks.
        folder: Folder that images and true masks are named relative to.
        weights_PB: Weight of each patient in each resample.
        options: Options of measuring.
        settings: Limits and reading processes.
        progress: Display.

    Returns:
        A row with `reference` is a difference; groups that are too small are there without a value.

    Raises:
        MedclipError: That of the first file where no image of a structure can be compared.
    """
    rows: list[Row] = []
    notes: list[str] = []
    for masks in cohort.masks:
        progress.stage(f"Comparing masks of {masks.name}", int(_known(masks).sum()))
        compared, more = _compared(masks, cohort, folder, settings, progress)
        one = _Structure(model, cohort, masks.name, compared, weights_PB, options)
        rows += [short(one.ways.of(row["attribute"]), row) for row in one.rows()]
        notes += more
    adjust([row for row in rows if "family" in row])
    return rows, notes


def hidden_rows(rows: list[Row]) -> list[Row]:
    """Return the rows of the table `suppressed`, without counts, from those of `masks`."""
    names = ("label", "attribute", "group", "reason")
    cells = (row for row in rows if (row["metric"], row["method"], row["flag"]) == ("dice", "model", "suppressed"))
    return [{name: row[name] for name in names} for row in cells]


def _known(masks: Masks) -> NDArray[np.bool_]:
    return (masks.truth_N != "") & (masks.predicted_N != "")


def _compared(
    masks: Masks, cohort: Cohort, folder: Path, settings: Settings, progress: Progress
) -> tuple[dict[int, ComparedMasks], list[str]]:
    """Compare image after image; one that cannot be compared is left out, and a note names its row and why."""
    files = cohort.files or ("",) * len(masks.truth_N)
    known = np.flatnonzero(_known(masks)).tolist()
    about = masks.name, settings
    jobs = (
        (folder / masks.truth_N[n], Path(masks.predicted_N[n]), folder / files[n], masks.modality_N[n], *about)
        for n in known
    )
    good: dict[int, ComparedMasks] = {}
    bad: dict[int, MedclipError] = {}
    with ReadingPool.of(settings) as pool:
        for n, future in zip(known, pool.map(compare_masks, jobs, ahead=64), strict=True):
            try:
                one = future.result()
                if one.problem is None:
                    good[n] = one
                else:
                    bad[n] = one.problem.error(one.where)
            except MedclipError as error:  # the process died or took too long
                bad[n] = error
            progress.step(1)
    if bad and not good:
        raise next(iter(bad.values()))
    notes = []
    if bad:
        named = [f"row {n + 1}: {error.message}" for n, error in bad.items()]
        reasons = by_reason(Counter(str(error.reason) for error in bad.values()))
        them = count(
            len(bad), "image cannot be compared and does not count", "images cannot be compared and do not count"
        )
        notes.append(f"{masks.name}: {them} ({reasons}). {list_of(named, most=_MOST_NAMED)}")
    covered = [float(one.shares_G.mean() / 255) for one in good.values() if one.shares_G is not None]
    if covered and np.mean(covered) > _MOST_COVERED:
        notes.append(f"CAUTION: true masks of {masks.name} are nearly all of their images: are these files of masks?")
    return good, notes


class _Structure:
    """One structure of one model."""

    def __init__(
        self,
        model: str,
        cohort: Cohort,
        name: str,
        compared: dict[int, ComparedMasks],
        weights_PB: NDArray[Any],
        options: MeasureOptions,
    ) -> None:
        self._head, self._cohort, self._weights_PB = {"model": model, "label": name}, cohort, weights_PB
        self._values = {metric: self._values_of(compared, metric) for metric in TITLES}
        self._rivals = self._rivals_of(compared)
        self._true_N, self._empty_N = (~np.isnan(self._values[metric]) for metric in ("dice", "empty_marked"))
        policy = options.small_cells
        alone = replace(policy, min_pos=0, min_neg=0)
        self._states, self._empty = (self._hidden(rows_N, alone) for rows_N in (self._true_N, self._empty_N))
        both = self._hidden(self._true_N | self._empty_N, policy if self._empty_N.any() else replace(policy, min_neg=0))
        self.ways: Roundings = roundings(cohort, [both], policy)

    def _values_of(self, compared: dict[int, ComparedMasks], metric: str) -> Floats:
        values_N = np.full(len(self._cohort.patients_N), np.nan)
        for n, one in compared.items():
            values_N[n] = one.figures[metric]
        return values_N

    def _rivals_of(self, compared: dict[int, ComparedMasks]) -> dict[str, Floats]:
        """Return the Dice of each rival, [N]; NaN where it has none, as Otsu of an image that could not be read."""
        with_truth = {n: one.shares_G for n, one in compared.items() if one.shares_G is not None}
        rivals = {name: np.full(len(self._cohort.patients_N), np.nan) for name in (POSITION, OTSU)}
        if with_truth:
            rows = np.array(list(with_truth))
            shares_NG = np.stack(list(with_truth.values())) / np.float32(255)
            rivals[POSITION][rows] = position_dices(shares_NG, self._cohort.patients_N[rows])
            sides_2N = np.array([compared[n].otsu for n in with_truth]).T
            rivals[OTSU][rows] = max(sides_2N, key=lambda side_N: np.nan_to_num(side_N).sum())
        return {name: values_N for name, values_N in rivals.items() if not np.isnan(values_N).all()}

    def _hidden(self, rows_N: NDArray[np.bool_], policy: Any) -> tuple[CellState, ...]:
        truth_N = np.where(rows_N, ~np.isnan(self._values["dice"]), np.nan).astype(np.float64)
        label = Label(self._head["label"], np.where(rows_N, 0.0, np.nan), truth_N, probability=False)
        return hidden(self._cohort, label, policy)

    def rows(self) -> Iterator[Row]:
        """Yield the figures of each cell, the rivals beside them, and the differences from all others."""
        for g, states in enumerate(zip(self._states, self._empty, strict=True)):
            for metric in self._measured():
                state = states[metric == "empty_marked"]
                yield from self._figure(state, metric)
            yield from self._beside(self._states[g])
        for state in self._states[1:]:
            yield from self._against_rest(state)

    def _measured(self) -> list[str]:
        return [metric for metric, values_N in self._values.items() if not np.isnan(values_N).all()]

    def _row(
        self, state: CellState, metric: str, e: Estimate | None, n: int, *, fewest: int | None = None, **more: Any
    ) -> Row:
        head = {**self._head, "attribute": state.cell.attribute, "group": state.cell.group, "metric": metric}
        if e is None:
            return head | {"flag": "suppressed", "reason": state.reason} | more
        way = self.ways.of(state.cell.attribute)
        counts = {"n": exported(way, n), "n_patients": exported(way, state.n_patients)}
        flag = "underpowered" if n < FEW_CASES else ""
        return (
            head
            | counts
            | {"flag": flag, "reason": ""}
            | rounded_values(way, fewest or n, e.value, e.low, e.high)
            | more
        )

    def _figure(
        self, state: CellState, metric: str, values_N: Floats | None = None, method: str = "model"
    ) -> Iterator[Row]:
        values_N = self._values[metric] if values_N is None else values_N
        if not state.shown:
            yield self._row(state, metric, None, 0, method=method)
        elif part := self._part(metric, values_N, cell_rows(self._cohort, state.cell)):
            figure, cases = part
            few = metric in DISTANCES and cases < self.ways.floor  # of those in which anything is marked
            state = replace(state, reason=f"fewer than {self.ways.floor} rows") if few else state
            yield self._row(state, metric, None if few else mask_estimate(metric, figure), cases, method=method)

    def _beside(self, state: CellState) -> Iterator[Row]:
        """Yield the Dice of each rival, and the model's less it."""
        inside_N = cell_rows(self._cohort, state.cell)
        for name, values_N in self._rivals.items():
            yield from self._figure(state, "dice", values_N, name)
            rival = self._part("dice", values_N, inside_N)
            own = self._part("dice", self._values["dice"], inside_N & ~np.isnan(values_N))
            if state.shown and rival and own:
                apart = difference(rival[0], own[0])
                yield self._row(state, "dice", apart, own[1], method="model", reference=name)

    def _against_rest(self, state: CellState) -> Iterator[Row]:
        inside_N = cell_rows(self._cohort, state.cell)
        for metric in COMPARED if state.shown else ():
            inside, outside = (self._part(metric, self._values[metric], rows_N) for rows_N in (inside_N, ~inside_N))
            if inside is None or outside is None or min(outside[1], outside[0].df + 1) < self.ways.floor:
                continue
            (one, cases), (other, rest) = inside, outside
            joined = combination(one.value - other.value, one.drawn_B - other.drawn_B, [one, other], [1, -1])
            d = change(joined.value, joined.drawn_B, joined.df + 1, added=joined.lift)
            tested = {"p": d.p, "family": f"masks, {self._head['model']}"}
            fewest = min(cases, rest)
            yield self._row(state, metric, d, cases, fewest=fewest, method="model", reference=REST, **tested)

    def _part(self, metric: str, values_N: Floats, inside_N: NDArray[np.bool_]) -> tuple[Resampled, int] | None:
        """Average a figure over some rows, and count them; None where none of them has it."""
        of_N = np.where(inside_N, values_N, np.nan)
        cases = int((~np.isnan(of_N)).sum())
        return (mask_mean(metric, of_N, self._cohort.patients_N, self._weights_PB), cases) if cases else None
