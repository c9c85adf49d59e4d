"""What a model makes of views of one thing: how near they are, whether one finds another, and what they give away.

Beside them stands what drawing views together may cost: whether images of one patient find each other, and whether the
projection, the side and the source can still be read from a vector.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.checks.embeddings.patient_retrieval import ANYBODY, Images, Ranked, rank, reident
from medclip.auditing.checks.embeddings.probe import probe
from medclip.auditing.checks.embeddings.vectors import estimated_mean
from medclip.shards.reading.samples import ShardReader
from medclip.statistics.cohort import MISSING, Attribute
from medclip.statistics.estimate import DECIMALS, NUM_RESAMPLES, Estimate, Figure
from medclip.statistics.metrics.classification import numbered
from medclip.statistics.resampling.intervals import percentile
from medclip.statistics.resampling.sums import ratios
from medclip.statistics.resampling.weights import draw_weights
from medclip.training.recipe.view_losses import Views
from medclip.training.steps.view_centres import objects_of

VIEW_TASK = "chest_xray_view"
"""Its label stands for the projection where a record has none."""
_NOWHERE = -1


@dataclass(frozen=True, eq=False)
class KnownViews:
    """What is known of N images; numbers, -1 where it is not known."""

    thing_N: NDArray[np.int64]
    patient_N: NDArray[np.int64]
    attributes: Mapping[str, Attribute]
    """Of `projection`, `side` and `source` those of which there are two values."""

    def nearest(self, vectors_ND: NDArray[np.floating]) -> Ranked:
        """Rank for each view the others, of another projection where it is known, with those of its thing as answers.

        Images of which nothing says what they show take no part.
        """
        allowed_NN = ~np.eye(len(self.thing_N), dtype=bool) & (self.thing_N >= 0) & (self.thing_N >= 0)[:, None]
        if (projection := self.attributes.get("projection")) is not None:
            code_N = np.where(np.array(projection.groups)[projection.codes_N] == MISSING, _NOWHERE, projection.codes_N)
            allowed_NN &= (code_N != code_N[:, None]) | (code_N < 0)
        same_NN = self.thing_N == self.thing_N[:, None]
        return rank(-_cosines(vectors_ND), same_NN & allowed_NN, ~same_NN & allowed_NN)

    def distances(self, vectors_ND: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the views that have others of their thing, [Q], and how far from each those and other things are.

        Returns:
            Rows, and mean distances (one minus the cosine) to the other views of the thing and to those of other things
            of other patients, float64 [2, Q].
        """
        apart_NN, known_N = 1 - _cosines(vectors_ND), self.thing_N >= 0
        same_NN = (self.thing_N == self.thing_N[:, None]) & ~np.eye(len(known_N), dtype=bool) & known_N
        other_NN = (self.thing_N != self.thing_N[:, None]) & known_N & (self.patient_N != self.patient_N[:, None])
        rows = np.flatnonzero(same_NN.any(axis=1) & other_NN.any(axis=1) & known_N)
        means = [(apart_NN * of).sum(axis=1)[rows] / of.sum(axis=1)[rows] for of in (same_NN, other_NN)]
        return rows, np.array(means)


def known_views(
    reader: ShardReader, settings: Views, rows_N: NDArray[np.integer], patients: Sequence[Hashable]
) -> KnownViews:
    """Read what is known of some samples; their pixels are not read.

    Args:
        reader: The split.
        settings: Section of the recipe, which says what names a thing.
        rows_N: Numbers of the samples.
        patients: Patient of each of them.
    """
    things = list(objects_of(reader, settings))
    chosen = [things[row] for row in rows_N.tolist()]
    columns: dict[str, list[str]] = {"projection": [], "side": [], "source": []}
    for row in rows_N.tolist():
        record, meta = reader.record(row)
        label = record.labels.get(VIEW_TASK)
        columns["projection"].append(record.view or (label if isinstance(label, str) else "") or "")
        columns["side"].append(record.laterality or "")
        columns["source"].append(meta.get("source") or "")
    attributes = {}
    for name, values in columns.items():
        groups = (*sorted({value.lower() for value in values} - {""}), MISSING)
        codes_N = np.array([groups.index(value.lower() or MISSING) for value in values], np.int16)
        if len(groups) > 2:  # two values, and the place of what is not known
            attributes[name] = Attribute(name, groups, codes_N)
    thing_N = numbered(chosen).astype(np.int64)
    thing_N[[None in names or "" in names for names in chosen]] = _NOWHERE
    return KnownViews(thing_N, numbered(list(patients)).astype(np.int64), attributes)


def view_figures(
    known: KnownViews, vectors_ND: NDArray[np.floating], *, num_resamples: int = NUM_RESAMPLES
) -> tuple[dict[str, Any], list[str]]:
    """Measure views of one thing and what drawing them together may cost; intervals over patients.

    Args:
        known: Things, patients, projections, sides and sources of the images.
        vectors_ND: Unit vectors of the images.
        num_resamples: Resamples of patients.

    Returns:
        Figures as a card has them, and sentences. `spread`: distance between views of one thing over that to other
        things, 1 where a thing is nothing to the model, with `distance`, the first of the two; `recall_across_views`:
        views whose nearest image of another projection is of their thing; `re_identification`: images whose nearest
        image is of the same patient, and `linkage`, as the audit has them; `probe`, by projection, side and source:
        area of a logistic probe on patients that it has not seen. What cannot be measured is left out.

    Reference: Ruan et al. 2024, Omniview-Tuning (spread); Habel et al. 2022, CLIP-ReIdent (re-identification).
    """
    weights_PB = draw_weights(int(known.patient_N.max(initial=0)) + 1, num_resamples, seed=0)
    figures: dict[str, Any] = {}

    def kept(estimate: Estimate, chance: float, rows: NDArray[np.integer]) -> dict[str, Any]:
        size = {"num_images": len(rows), "num_patients": len(np.unique(known.patient_N[rows]))}
        at_random = {} if math.isnan(chance) else {"chance": round(chance, DECIMALS)}
        return vars(Figure.of(estimate)) | at_random | size

    rows, mean_2Q = known.distances(vectors_ND)
    if len(rows):
        whose_Q, one_2Q = known.patient_N[rows], np.array([mean_2Q[1], np.ones(len(rows))])
        (spread, distance), drawn_2B = ratios(whose_Q, weights_PB, mean_2Q[[0, 0]], one_2Q)
        figures["spread"] = kept(Estimate(float(spread), *percentile(drawn_2B[0])), 1.0, rows)
        figures["distance"] = kept(Estimate(float(distance), *percentile(drawn_2B[1])), math.nan, rows)
    ranked = known.nearest(vectors_ND)
    if len(ranked.queries_Q):
        hits_Q = (ranked.first_Q <= 1).astype(float)
        estimate = estimated_mean(hits_Q, known.patient_N[ranked.queries_Q], weights_PB)
        figures["recall_across_views"] = kept(estimate, float(ranked.chance_Q.mean()), ranked.queries_Q)
    of_patients = reident(vectors_ND, Images(known.patient_N), num_replicates=num_resamples)
    count_P = np.bincount(known.patient_N)
    several = np.flatnonzero(count_P[known.patient_N] > 1)
    chance = float(np.mean((count_P[known.patient_N[several]] - 1) / (len(known.patient_N) - 1))) if len(several) else 0
    notes = []
    for row in of_patients:
        estimate = Estimate(row["value"], row["low"], row["high"])
        if row["name"] == "CMC@1":
            figures["re_identification"] = kept(estimate, chance, several)
        elif row["name"] == "linkage at FPR 0.001":
            figures["linkage"] = kept(estimate, 0.001, several)
        elif row["name"] == "verdict" and row["attribute"] == ANYBODY:
            notes.append(f"re-identification, {row['note']}")
    for name, attribute in known.attributes.items():
        table = probe(vectors_ND, known.patient_N, attribute, kinds=("logistic",), num_replicates=num_resamples)
        for row in table:
            if row["name"] == "logistic: macro AUROC" and not math.isnan(row["value"]):
                stated = np.flatnonzero(np.array(attribute.groups)[attribute.codes_N] != MISSING)
                estimate = Estimate(row["value"], row["low"], row["high"])
                figures.setdefault("probe", {})[name] = kept(estimate, 0.5, stated)
    return figures, notes


def _cosines(vectors_ND: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the cosines of unit vectors; those of equal pairs are equal."""
    return np.round(vectors_ND.astype(np.float64) @ vectors_ND.T.astype(np.float64), 6)
