"""Attributes that coincide: where nearly all AP films are of one scanner, a gap of views may be one of scanners.

For each group that fares worse beyond chance, and each other attribute that is associated with being in that group
(Cramér's V of `LEAST_ASSOCIATION` or more), the difference is measured once more within the groups of the other
attribute, and averaged over them: Σ w_s d_s / Σ w_s with w_s = a_s b_s / (a_s + b_s) for the cases on both sides of
stratum s (Mantel and Haenszel's weights; cases are positives for a sensitivity, negatives for a false positive rate,
else the scarcer of both). Strata in which either side may not be shown are left out. The interval is that of every
difference: value ± t · SE of the resamples of patients. It is a description and no test.

References: Cramér, Mathematical Methods of Statistics, 1946; Mantel & Haenszel, JNCI 22 (1959) 719-748.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.disclosure import hidden
from medclip.auditing.groups.differences import REST
from medclip.auditing.groups.measure import Measured, fewest_of, rounded_values
from medclip.auditing.options import MeasureOptions
from medclip.statistics.cohort import CONFLICT, MISSING, Attribute, Cohort, Label
from medclip.statistics.resampling.bootstrap import evaluate
from medclip.statistics.resampling.resampled import change

Row = dict[str, Any]
LEAST_ASSOCIATION = 0.3
"""Cramér's V from which on two attributes are said to coincide; 1 is one and the same."""
_LEVEL = 0.05


def coinciding_rows(measured: Measured, differences: Sequence[Row], options: MeasureOptions) -> list[Row]:
    """Return the table `coinciding`: a difference that was found, given each attribute that its group goes with."""
    rows: list[Row] = []
    attributes = {attribute.name: attribute for attribute in measured.cohort.attributes}
    labels = {label.name: label for label in measured.cohort.labels}
    for row in differences:
        if row["reference"] != REST or row.get("p_holm") is None or not row["p_holm"] <= _LEVEL:
            continue
        label, attribute = labels[row["label"]], attributes[row["attribute"]]
        inside_N = attribute.codes_N == attribute.groups.index(row["group"])
        for given in attributes.values():
            association = _association(inside_N[label.valid_N], given.codes_N[label.valid_N])
            if given is attribute or association < LEAST_ASSOCIATION:
                continue
            head = {name: row[name] for name in ("model", "label", "attribute", "group", "metric")}
            rows.append(
                {**head, "given": given.name, "association": round(association, 2)}
                | _overlap(inside_N & label.valid_N, given)
                | _within(measured, label, inside_N, given, str(row["metric"]), options)
            )
    return rows


def _association(inside_n: NDArray[np.bool_], codes_n: NDArray[np.integer[Any]]) -> float:
    """Return Cramér's V of being in a group and another attribute; 0 where one of them does not vary."""
    table = np.stack([np.bincount(codes_n[side], minlength=int(codes_n.max()) + 1) for side in (inside_n, ~inside_n)])
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / max(int(table.sum()), 1)
    if not inside_n.any() or inside_n.all():
        return 0.0
    squares = np.divide((table - expected) ** 2, expected, out=np.zeros(expected.shape), where=expected > 0)
    return float(np.sqrt(squares.sum() / table.sum()))


def _overlap(inside_N: NDArray[np.bool_], given: Attribute) -> Row:
    """Return the group of the other attribute that stands out most in this group, and the share of rows it has."""
    groups = range(len(given.groups))
    inside_G = np.bincount(given.codes_N[inside_N], minlength=len(groups)) / inside_N.sum()
    everybody_G = np.bincount(given.codes_N, minlength=len(groups)) / len(given.codes_N)
    most = int(np.argmax(inside_G - everybody_G))
    return {"other_group": given.groups[most], "share": round(float(inside_G[most]), 2)}


def _within(
    measured: Measured,
    label: Label,
    inside_N: NDArray[np.bool_],
    given: Attribute,
    metric: str,
    options: MeasureOptions,
) -> Row:
    """Average the difference over the groups of another attribute; blank where no stratum has both sides."""
    sides = tuple(f"{group}, {side}" for group in given.groups for side in (REST, "group"))
    halves = Attribute(given.name, sides, (2 * given.codes_N + inside_N).astype(np.int16))
    cohort: Cohort = replace(measured.cohort, attributes=(halves,))
    states = hidden(cohort, label, options.small_cells)
    strata = [
        s
        for s, group in enumerate(given.groups)
        if group not in (MISSING, CONFLICT) and states[1 + 2 * s].shown and states[2 + 2 * s].shown
    ]
    if not strata:
        return {"num_strata": 0}
    threshold = measured.values.get(label.name)
    replicates = evaluate(cohort, label, measured.weights_PB, threshold=threshold, metrics=[metric])
    outside, inside = (np.array([1 + 2 * s + side for s in strata]) for side in (0, 1))
    fewest_G = np.minimum(replicates.n_pos_G, replicates.n_neg_G)
    cases_G = {"tpr": replicates.n_pos_G, "fpr": replicates.n_neg_G}.get(metric, fewest_G).astype(np.float64)
    weight_s = cases_G[inside] * cases_G[outside] / (cases_G[inside] + cases_G[outside])
    point_G, drawn_GB = replicates.point[metric], replicates.drawn[metric]
    value = float(np.average(point_G[inside] - point_G[outside], weights=weight_s))
    drawn_sB = drawn_GB[inside] - drawn_GB[outside]
    weight_sB = np.where(np.isnan(drawn_sB), 0.0, weight_s[:, None])
    total_B = weight_sB.sum(axis=0)
    summed_B = (np.nan_to_num(drawn_sB) * weight_sB).sum(axis=0)
    drawn_B = np.divide(summed_B, total_B, out=np.full(len(total_B), np.nan), where=total_B > 0)
    patients = float(min(replicates.n_patients_G[inside].sum(), replicates.n_patients_G[outside].sum()))
    d = change(value, drawn_B, patients)
    fewest = min(fewest_of(metric, states[cell]) for cell in (*inside, *outside))
    rounding = measured.roundings.coarsest
    return {"num_strata": len(strata)} | rounded_values(rounding, fewest, d.value, d.low, d.high)
