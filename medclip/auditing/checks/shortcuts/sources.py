"""Does the score follow the finding, or the place that the image comes from?

Where one source sends mostly the ill and another mostly the healthy, a score that knows the source looks like one that
knows the disease: pooled over both, its AUROC is high. Three comparisons part the two:

- within sources: pairs of a positive and a negative of the same source, of which the source tells nothing;
- across sources: pairs of two sources. A score that goes by the source wins all of one direction and loses the other,
  so each direction is measured: positives of one source against negatives of the others, and the reverse;
- the source alone: what a score would get that is the share of positives of the image's source, learned on other
  patients (five folds; pairs within a fold, since shares of different folds differ by whom they leave out).

And the test: among negatives the score should not know the source. The AUROC of one source against the others among
negatives is held against the AUROC of the finding in the direction in which that would hurt (negatives of the source
that scores higher, positives of the others). Where the source is told better than the finding, the check is red.

Reference: Zech et al., Variable generalization performance of a deep learning model to detect pneumonia in chest
radiographs, PLoS Medicine 15 (2018) e1002683; Borkan et al., WWW companion (2019) 491-500 (pairs across groups).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.checks.table import CheckRows
from medclip.auditing.disclosure import CellState
from medclip.auditing.groups.measure import Measured, adjust, exported, rounded_values, short
from medclip.auditing.input.groups import kind_of
from medclip.auditing.options import MeasureOptions
from medclip.files.tables.table import plain_name
from medclip.statistics.cohort import ALL, CONFLICT, MISSING, Attribute, Cohort, Label
from medclip.statistics.estimate import Difference, Estimate
from medclip.statistics.metrics.by_source import FOLDS, joined, source_shares
from medclip.statistics.metrics.ranks import auroc, resampled_auroc
from medclip.statistics.resampling.bootstrap import evaluate
from medclip.statistics.resampling.intervals import estimates
from medclip.statistics.resampling.resampled import change, interval_of, share
from medclip.statistics.resampling.standard_errors import clusters_of, effective_patients
from medclip.statistics.resampling.sums import blocks, summing_matrix

if TYPE_CHECKING:
    from medclip.auditing.checks.evidence import Evidence

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Row = dict[str, Any]

POOLED, WITHIN, ACROSS, ALONE = "pooled", "within sources", "across sources", "source alone"
ITS_POSITIVES, ITS_NEGATIVES = "its positives, others' negatives", "others' positives, its negatives"
KNOWN, AGAINST = "source among negatives", "source minus finding"
"""Values of `what`, in the order in which they are written."""
RED, NOTE = "red", "note"
NAMES = ("source", "site", "dataset", "data_source")
"""Attributes that are taken for the source where none is named; `site` with its other names (hospital, institution)."""
_CHANCE = 0.5
_ALPHA = 0.05
_MOST_RESAMPLES, _FEW_RESAMPLES = 500, 100
"""Of the source among negatives, where the source is told better than the finding and where it is not: standard errors
are then right to 3 % and 7 %, and many sources take no longer than one."""


def source_attribute(cohort: Cohort, named: str | None) -> Attribute | None:
    """Return the attribute that says where images come from; None where none does."""
    wanted = {plain_name(named)} if named else {plain_name(name) for name in NAMES}
    for attribute in cohort.attributes:
        kind = attribute.name if named else kind_of(attribute.name)
        if plain_name(kind) in wanted or plain_name(attribute.name) in wanted:
            return attribute
    return None


def check_sources(evidence: Evidence) -> CheckRows:
    """Measure what the score gets within and across sources, and what it knows of them: table `sources`.

    Returns:
        Nothing where no attribute is a source, or only one source has rows. p is of `source minus finding` and adjusted
        over labels and sources (Holm); `severity` is "red" where the score tells a source better than the finding, or
        where no source has both positives and negatives.
    """
    measured, options = evidence.measured, evidence.options
    attribute = source_attribute(measured.cohort, options.shortcuts.site)
    if attribute is None:
        return CheckRows({})
    rows: list[Row] = []
    for label in measured.cohort.labels:
        one = _Sources(measured, label, attribute, options)
        if label.time_N is None and one.num_sources > 1:
            rows += one.rows()
    tested = [row for row in rows if "family" in row]
    adjust(tested)
    sources = {(row["label"], row["source"]): row for row in rows if row["what"] == KNOWN}
    for row in tested:
        sure = row["p_holm"] is not None and row["p_holm"] <= _ALPHA
        if sure and row["value"] > 0 and _tells_apart(sources[row["label"], row["source"]]):
            row["severity"] = RED
    return CheckRows({"sources": [short(measured.roundings.of(row["attribute"]), row) for row in rows]})


def _tells_apart(row: Row) -> bool:
    """Whether a source is told apart at all: a score that is reversed tells anything better than the finding."""
    ends = [end for end in (row["low"], row["high"]) if end is not None and np.isfinite(end)]
    return len(ends) == 2 and not min(ends) <= _CHANCE <= max(ends)


@dataclass(frozen=True, eq=False)
class _Side:
    """Positives and negatives that are compared."""

    positive_N: Bools
    negative_N: Bools


class _Sources:
    """One label of one model by its sources."""

    def __init__(self, measured: Measured, label: Label, attribute: Attribute, options: MeasureOptions) -> None:
        self._measured, self._label, self._attribute = measured, label, attribute
        self._seed = options.seed
        self._least = options.small_cells.min_patients
        self._cohort = measured.cohort
        self._replicates = measured.replicates[label.name]
        self._clusters = clusters_of(self._cohort, label)
        valid_N = label.valid_N
        self._positive_N, self._negative_N = valid_N & (label.truth_N == 1), valid_N & (label.truth_N == 0)
        states = measured.states[label.name]
        position = self._cohort.attributes.index(attribute)
        self._cells = [
            (g, s)
            for g, s in enumerate(states)
            if s.cell.position[0] == position and s.n and s.cell.group not in (MISSING, CONFLICT)
        ]
        self.num_sources = len(self._cells)

    def rows(self) -> Iterator[Row]:
        """Yield all rows of the label."""
        pooled = self._own(0, None)
        yield pooled
        yield from self._pairs(pooled)
        yield self._alone(pooled)
        yield from (self._own(g, state) for g, state in self._cells if state.shown)
        for g, state in self._cells[: 1 if self.num_sources == 2 else None]:  # of two, one is the mirror of the other
            yield from self._source(g, state)

    def _row(
        self, what: str, source: str, estimate: Estimate, side: _Side, *, has_counts: bool = True, **more: Any
    ) -> Row:
        rounding = self._measured.roundings.of(self._attribute.name)
        num_pos, num_neg = int(side.positive_N.sum()), int(side.negative_N.sum())
        fewest = max(num_pos * num_neg // 2, 1)
        row: Row = {
            **{"model": self._measured.name, "label": self._label.name, "attribute": self._attribute.name},
            **{"source": source, "what": what, "severity": NOTE, "note": ""},
            **rounded_values(rounding, fewest, estimate.value, estimate.low, estimate.high),
        }
        if has_counts:
            row |= {"n_pos": exported(rounding, num_pos), "n_neg": exported(rounding, num_neg)}
        return row | ({"p": estimate.p} if isinstance(estimate, Difference) else {}) | more

    def _own(self, g: int, state: CellState | None) -> Row:
        """Return the AUROC of everybody, or of one source, which was measured already."""
        estimate = estimates(self._replicates, "auroc", self._clusters)[g]
        if state is None:
            return self._row(POOLED, ALL, estimate, _Side(self._positive_N, self._negative_N))
        inside_N = self._inside(state)
        sides = _Side(self._positive_N & inside_N, self._negative_N & inside_N)
        return self._row(WITHIN, state.cell.group, estimate, sides)

    def _inside(self, state: CellState) -> Bools:
        return self._attribute.codes_N == state.cell.position[1]

    def _pairs(self, pooled: Row) -> Iterator[Row]:
        """Yield the areas of all pairs within sources, and of all pairs across them."""
        codes = [s.cell.position[1] for _, s in self._cells]
        positives_SB, negatives_SB = self._counts(self._attribute.codes_N, codes, self._measured.weights_PB)
        mixed = [c for c, p, n in zip(codes, positives_SB[:, 0], negatives_SB[:, 0], strict=True) if p > 0 and n > 0]
        kinds = (
            (WITHIN, "auroc", positives_SB * negatives_SB, mixed),
            (ACROSS, "auroc_bnsp", positives_SB * (negatives_SB.sum(axis=0) - negatives_SB), codes),
        )
        for what, metric, pairs_SB, used in kinds:
            used_N = np.isin(self._attribute.codes_N, used)
            side = _Side(self._positive_N & used_N, self._negative_N & used_N)
            cells = [g for g, _ in self._cells]
            value, drawn_B = joined(
                self._replicates.point[metric][cells], self._replicates.drawn[metric][cells], pairs_SB
            )
            row = self._row(what, ALL, self._estimate(value, drawn_B, side), side)
            if what == WITHIN and np.isnan(value):
                name = self._attribute.name
                row["severity"] = RED
                row["note"] = (
                    f"No {name} has both positives and negatives of {self._label.name}: the finding and the {name} "
                    f"cannot be told apart here, and an AUROC of {pooled['value']:.2f} may be of either."
                )
            yield row

    def _estimate(self, value: float, drawn_B: Floats, side: _Side) -> Estimate:
        """Return an area between positives and negatives with its interval."""
        patients = self._patients(side)
        if np.isnan(value) or patients < 2:
            return Estimate(value)
        pairs = float(side.positive_N.sum()), float(side.negative_N.sum())
        return interval_of(share(value, drawn_B, cases=min(pairs), patients=patients, pairs=pairs))

    def _patients(self, side: _Side) -> float:
        who_N = self._cohort.patients_N
        return min(effective_patients(who_N[side.positive_N]), effective_patients(who_N[side.negative_N]))

    def _counts(self, codes_N: NDArray[Any], codes: Sequence[int], weights_PB: NDArray[Any]) -> tuple[Floats, Floats]:
        """Weigh positives and negatives of each group, in the sample and in each resample, twice [S, 1 + B]."""
        place_N = np.full(len(codes_N), -1)
        for s, code in enumerate(codes):
            place_N[self._positive_N & (codes_N == code)] = s
            place_N[self._negative_N & (codes_N == code)] = len(codes) + s
        rows = np.flatnonzero(place_N >= 0)
        value_n = None if self._label.weight_N is None else self._label.weight_N[rows]
        who_n = self._cohort.patients_N[rows]
        matrix = summing_matrix(place_N[rows], 2 * len(codes), who_n, len(weights_PB), value_n)
        parts = [
            np.asarray(block.sums(matrix)[:, : block.num], np.float64)
            for weights in (np.ones((len(weights_PB), 1), np.uint8), weights_PB)
            for block in blocks(weights, len(rows), value_n is None)
        ]
        sizes = np.concatenate(parts, axis=1)
        return sizes[: len(codes)], sizes[len(codes) :]

    def _alone(self, pooled: Row) -> Row:
        """Measure a score that knows nothing but the source."""
        codes = [s.cell.position[1] for _, s in self._cells]
        used_N = (self._positive_N | self._negative_N) & np.isin(self._attribute.codes_N, codes)
        fold_P = np.random.default_rng(self._seed).permutation(self._cohort.num_patients) % FOLDS
        fold_N = fold_P[self._cohort.patients_N].astype(np.int16)
        shares_N = source_shares(self._positive_N, used_N, self._attribute.codes_N, fold_N)
        folds = Attribute("fold", tuple(map(str, range(FOLDS))), fold_N, True)
        cohort, label = (
            replace(self._cohort, attributes=(folds,)),
            replace(self._label, score_N=shares_N, probability=False),
        )
        weights_Pb = self._measured.weights_PB[:, :_MOST_RESAMPLES]
        replicates = evaluate(cohort, label, weights_Pb, metrics=["auroc"])
        positives_SB, negatives_SB = self._counts(np.where(used_N, fold_N, -1), range(FOLDS), weights_Pb)
        by_fold = replicates.point["auroc"][1:], replicates.drawn["auroc"][1:]
        side = _Side(self._positive_N & used_N, self._negative_N & used_N)
        row = self._row(ALONE, ALL, self._estimate(*joined(*by_fold, positives_SB * negatives_SB), side), side)
        note = (
            f"A score that knows the {self._attribute.name} alone would get an AUROC of {row['value']:.2f} for "
            f"{self._label.name}; this one has {pooled['value']:.2f}."
        )
        return row | {"note": note}

    def _source(self, g: int, state: CellState) -> Iterator[Row]:
        """Yield both directions across, and whether the score knows the source among negatives."""
        inside_N, source = self._inside(state), state.cell.group
        outside_N = np.isin(self._attribute.codes_N, [s.cell.position[1] for _, s in self._cells]) & ~inside_N
        negatives = _Side(self._negative_N & inside_N, self._negative_N & outside_N)
        directions = (
            (ITS_POSITIVES, "auroc_bnsp", _Side(self._positive_N & inside_N, self._negative_N & outside_N)),
            (ITS_NEGATIVES, "auroc_bpsn", _Side(self._positive_N & outside_N, self._negative_N & inside_N)),
        )
        across: dict[str, Row] = {}
        for what, metric, side in directions:
            if self._enough(side):
                estimate = estimates(self._replicates, metric, self._clusters)[g]
                across[what] = self._row(what, source, estimate, side, shown=state.shown)
        yield from across.values()
        if not self._enough(negatives):
            yield self._unseen(source, "negatives")
            return
        rows = np.flatnonzero(negatives.positive_N | negatives.negative_N)
        score_n, who_n = self._label.score_N[rows], self._cohort.patients_N[rows]
        point = float(auroc(score_n, inside_N[rows]))
        higher = point >= 0.5
        what, metric, side = directions[higher]
        finding = float(self._replicates.point[metric][g])
        num = _MOST_RESAMPLES if max(point, 1 - point) > finding else _FEW_RESAMPLES
        weights_Pb = self._measured.weights_PB[:, :num]
        value, drawn_b = resampled_auroc(score_n, inside_N[rows], who_n, weights_Pb)
        among = self._row(KNOWN, source, self._estimate(value, drawn_b, negatives), negatives, shown=state.shown)
        yield among
        if what not in across:
            yield self._unseen(source, "positives")
            return
        apart_b = (drawn_b if higher else 1 - drawn_b) - self._replicates.drawn[metric][g][: len(drawn_b)]
        apart = (value if higher else 1 - value) - finding
        tested = change(apart, apart_b, min(self._patients(negatives), self._patients(side)))
        pair = ("the others", source) if higher else (source, "the others")
        order, known = "higher" if higher else "lower", max(among["value"], 1 - among["value"])
        note = (
            f"{self._label.name}: among negatives the score is {order} for {source} than for the other sources (AUROC "
            f"{known:.2f} for telling them apart). Positives of {pair[0]} are told from negatives of {pair[1]} "
            f"{'less well' if apart > 0 else 'better'} than that (AUROC {across[what]['value']:.2f})."
        )
        family = f"sources, {self._measured.name}"
        yield self._row(AGAINST, source, tested, side, shown=state.shown, note=note, family=family)

    def _unseen(self, source: str, what: str) -> Row:
        """Return the row of a test that could not be made."""
        note = (
            f"{self._label.name}: too few patients are {what} of {source} or of the other sources (fewer than "
            f"{self._least}) to see whether the score follows the {self._attribute.name}."
        )
        nobody_N = np.zeros(len(self._positive_N), bool)
        nothing = Estimate(float("nan"))
        return self._row(AGAINST, source, nothing, _Side(nobody_N, nobody_N), shown=False, note=note)

    def _enough(self, side: _Side) -> bool:
        """Whether both sides have as many patients as anything that is shown."""
        who_N = self._cohort.patients_N
        return min(len(np.unique(who_N[n])) for n in (side.positive_N, side.negative_N)) >= self._least
