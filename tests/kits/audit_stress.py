"""Rows of the tables of a stress test, made by code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

CORRUPTIONS = ("shot_noise", "gaussian_blur", "contrast_down", "gamma_corr_down", "jpeg_compression")
GRADES = (1, 3, 5)
_CLEAN = {"auroc": 0.9, "tpr": 0.8, "fpr": 0.15, "brier": 0.12, "calibration_in_the_large": -0.1}
_LOST = {"auroc": -0.03, "tpr": -0.09, "fpr": 0.04, "brier": 0.03, "calibration_in_the_large": 0.8}


def stress_rows(
    model: str, label: str, groups: Mapping[str, Sequence[str]], hidden: Any = (), *, p_holm: float = 0.4
) -> Iterator[dict[str, Any]]:
    """Make the rows of one label: clean, each form, the mean over them, prompts and patches. Later groups lose more."""
    rng = np.random.default_rng(len(label))
    for attribute, names in {"all": ("all",), **groups}.items():
        for g, group in enumerate(names):
            if (attribute, group) in hidden:
                continue
            place = {"model": model, "label": label, "attribute": attribute, "group": group}
            counts = {"n": 400, "n_pos": 150, "n_patients": 300, "flag": ""}
            head = {**place, **counts, "kind": "clean", "name": "clean"}
            for metric, value in _CLEAN.items():
                clean = {**head, "metric": metric}
                yield clean | around("", value, 0.04)
                for name in CORRUPTIONS:
                    for grade in GRADES:
                        lost = _LOST[metric] * grade / 3 * (1 + 0.4 * g) * rng.uniform(0.6, 1.4)
                        yield _changed(clean, "corruption", name, value, lost, grade=grade, strength="3")
                yield _changed(clean, "mean", "all corruptions", value, _LOST[metric] * (1 + 0.4 * g)) | (
                    {"p": p_holm / 20, "p_holm": p_holm, "p_bh": p_holm / 2, "family": f"stress, {model}"}
                    if metric == "tpr" and g
                    else {}
                )
            for name in ("view", "device"):
                yield _changed(head | {"metric": "auroc"}, "prompts", name, 0.9, 0.01, strength="inferred")
            for metric in ("missed", "false_alarms"):
                cell = {"kind": "patches", "name": "shot_noise", "grade": 5, "strength": "", "metric": metric}
                yield {**place, **counts, **cell} | around("", 0.06, 0.03)


def ood_rows(model: str) -> Iterator[dict[str, Any]]:
    """Make the rows of strangeness for everybody."""
    for name in CORRUPTIONS:
        for grade in GRADES:
            for score in ("max_logit", "distance"):
                yield {
                    **{"model": model, "attribute": "all", "group": "all", "name": name, "grade": grade},
                    **{"score": score, "fpr95": 0.6, "n": 400},
                } | around("", 0.5 + 0.08 * grade, 0.05)


def around(name: str, middle: float, half: float) -> dict[str, float]:
    """Make a figure and its interval."""
    low, high = (f"{name}_low", f"{name}_high") if name else ("low", "high")
    return {name or "value": middle, low: middle - half, high: middle + half}


def _changed(clean: dict[str, Any], kind: str, name: str, value: float, lost: float, **more: Any) -> dict[str, Any]:
    row = {**clean, "kind": kind, "name": name, **more} | around("", value + lost, 0.04) | around("change", lost, 0.03)
    return row if clean["group"] == "all" else row | around("more", lost / 3, 0.02)
