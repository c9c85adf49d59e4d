"""Audits made by code, for the page: one with everything, one with two models, one nearly empty."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from medclip.auditing.checks.shortcuts.device import GAP, POSITIVES, WITH, WITHOUT
from medclip.auditing.groups.differences import ratio_rows
from medclip.auditing.groups.equity import SCALED, WORST, verdict
from medclip.auditing.input.missing import THIRDS
from medclip.auditing.result import AuditResult
from medclip.statistics.metrics.catalogue import METRICS
from medclip.statistics.metrics.grading_agreement import METRICS as GRADES
from medclip.statistics.metrics.masks import TITLES as MASKS
from medclip.statistics.significance import benjamini_hochberg, holm
from medclip.statistics.yearly_risk import CONCORDANCES, POPULATIONS
from medclip.statistics.yearly_risk import METRICS as YEARLY
from tests.kits.audit_stress import ood_rows, stress_rows

EVIL = "<img src=x onerror=alert(1)>\"'&"
LABELS = ("Pleural Effusion", "Pneumonia", "Pneumothorax")
GROUPS = {
    "sex": ("female", "male", "not stated"),
    "age": ("18-25", "25-50", "50-65", "65-80", "80+"),
    "site": ("site A", "site B", "site C"),
}
HIDDEN = (("age", "18-25"), ("site", "site C"), ("sex", "not stated"))
GAPS = (
    *(f"{m}_max_min" for m in ("auroc", "underdiagnosis", "overdiagnosis", "tpr", "fpr", "ppv", "brier")),
    "calibration_in_the_large_max_min",
    *("auroc_worst_overall", "equalised_odds", "demographic_parity", "cross_group_auroc"),
)
_MIDDLES = {
    "brier": 0.12,
    "ece": 0.04,
    "ece_mass": 0.04,
    "calibration_intercept": -0.2,
    "calibration_in_the_large": -0.1,
    "observed_expected": 0.93,
    "calibration_slope": 0.9,
    "fpr": 0.18,
    "underdiagnosis": 0.21,
    "overdiagnosis": 0.18,
    "fnr": 0.21,
    "prevalence": 0.15,
    "net_benefit": 0.06,
    "ppv": 0.44,
    "auprc": 0.5,
    "auprc_adjusted": 0.4,
}


def full(labels: Sequence[str] = LABELS, models: Sequence[str] = ("medclip-mini",), seed: int = 0) -> AuditResult:
    """Make an audit in which every table has rows and two checks for leakage are red."""
    rng = np.random.default_rng(seed)
    metrics = tuple(row for model in models for label in labels for row in _metrics(rng, model, label))
    return AuditResult(
        metrics=metrics,
        differences=_adjusted([r for m in models for k in labels for r in _differences(rng, m, k)]),
        gaps=_adjusted([row for model in models for label in labels for row in _gaps(rng, model, label)]),
        coinciding=tuple(_coinciding(model, labels[0]) for model in models),
        ratios=tuple({**row, "verdict": verdict(row)} for row in ratio_rows(metrics)),
        equity=tuple(
            {
                **{"model": model, "label": label, "attribute": attribute, "metric": "auroc", "measure": measure},
                **{"group": group, "num_groups": 3, "value": 0.7, "low": 0.6, "high": 0.8},
            }
            for model in models
            for label in labels
            for attribute in GROUPS
            for measure, group in ((WORST, GROUPS[attribute][0]), (SCALED, None))
        ),
        models=_adjusted([r for other in models[1:] for k in labels for r in _paired(rng, models[0], other, k)]),
        thresholds=tuple(_threshold(rng, model, label) for model in models for label in labels),
        calibration=tuple(r for m in models for k in labels for r in _bins(rng, m, k)),
        decision=tuple(row for model in models for label in labels for row in _decision(model, label)),
        requirements=tuple(row for model in models for row in _requirement(model, labels[0])),
        suppressed=tuple(
            {"label": label, "attribute": a, "group": g, "reason": "fewer than 10 positives", "n": "<10"}
            for label in labels
            for a, g in HIDDEN
        ),
        flow=tuple(row for model in models for row in _flow(model, labels)),
        unscored=tuple(row for model in models for row in _unscored(model)),
        score_values=tuple({"model": m, "label": k, "n": 1201, "n_values": 1180} for m in models for k in labels),
        unlabelled=tuple(row for model in models for row in _unlabelled(model, labels[0])),
        shortcuts=tuple(row for model in models for row in _shortcuts(model, labels[-1])),
        representation=tuple(_representation(models[0])),
        ordinal=tuple(_ordinal(models[0])),
        masks=tuple(_masks(models[0])),
        risk=tuple(_risk(models[0])),
        sources=tuple(row for model in models for row in _sources(model, labels[0])),
        embeddings=tuple(row for model in models for row in _embeddings(model)),
        projection=tuple(row for model in models for row in _points(rng, model)),
        stress=tuple(r for k in labels for r in stress_rows(models[0], k, GROUPS, HIDDEN)),
        stress_ood=tuple(ood_rows(models[0])),
        leakage=(
            {
                "check": "patients in training and audit",
                "found": 3,
                "tested": 812,
                "severity": "red",
                "sentence": "3 of 812 audited patients also stand in the training manifest.",
            },
            {
                "check": "near-duplicate images",
                "found": 2,
                "tested": 1204,
                "severity": "red",
                "sentence": "2 audited images look the same as a training image.",
            },
            {
                "check": "exact images",
                "found": 0,
                "tested": 1204,
                "severity": "note",
                "sentence": "No audited image is in training, byte for byte.",
            },
            {
                "check": "shots of an adapted model",
                "found": None,
                "tested": 0,
                "severity": "note",
                "sentence": "The pack lists no shots, so this could not be tested.",
            },
        ),
        model_names=tuple(models),
        labels=tuple(labels),
        attributes=tuple(GROUPS),
        settings={
            "alpha": 0.05,
            "power": 0.8,
            "replicates": 1000,
            "permutations": 1000,
            "interval": "percentile",
            "counts": "rounded to 5",
            "min_pos": 10,
            "by": list(GROUPS),
        },
        provenance={
            "version": "0.4.0",
            "seed": 0,
            "inputs": [
                {"for": "scores", "name": "net.csv", "size": 1234, "sha256": "a" * 64},
                {"for": "labels", "name": "labels.csv", "size": 5678, "sha256": "b" * 64},
            ],
        },
        notes=("12 rows of the label table have no score and were left out.",),
    )


def nearly_empty() -> AuditResult:
    """Make an audit of one label, without groups, thresholds, embeddings or checks."""
    row = {
        "model": "scores",
        "dataset": "table",
        "label": "finding",
        "attribute": "all",
        "group": "all",
        "metric": "auroc",
        "value": 0.71,
        "low": None,
        "high": None,
        "n": 44,
        "n_pos": 12,
        "n_neg": 32,
        "n_patients": 40,
        "flag": "",
    }
    return AuditResult(metrics=(row,), model_names=("scores",), labels=("finding",))


def without_findings() -> AuditResult:
    """Make the full audit with no gap above chance and nothing red."""
    made = full()
    return replace(
        made,
        gaps=tuple({**row, "p": 0.4, "p_holm": 1.0, "p_bh": 0.8} for row in made.gaps),
        differences=tuple({**row, "p": 0.4, "p_holm": 1.0, "p_bh": 0.8} for row in made.differences),
        leakage=tuple(row for row in made.leakage if row["severity"] != "red"),
        unscored=tuple({**row, "p": None, "p_holm": None} for row in made.unscored),
    )


def six_attributes(made: AuditResult) -> AuditResult:
    """Give an audit each of its attributes twice, by another name."""
    tables = {
        name: tuple(
            {**row, "attribute": f"{row['attribute']}{again}"}
            for again in ("", " again")
            for row in made.rows(name)
            if not (again and row["attribute"] == "all")
        )
        for name in ("metrics", "differences", "gaps", "ratios", "models", "calibration", "suppressed")
    }
    return replace(made, **tables, attributes=(*made.attributes, *(f"{name} again" for name in made.attributes)))


def _cells() -> Iterator[tuple[str, str]]:
    yield "all", "all"
    for attribute, groups in GROUPS.items():
        yield from ((attribute, group) for group in groups)


def _around(rng: np.random.Generator, middle: float, half: float) -> dict[str, float]:
    value = middle + rng.normal(0, min(half, abs(middle)) / 3)
    return {"value": value, "low": value - half * rng.uniform(0.5, 0.6), "high": value + half * rng.uniform(0.8, 1.1)}


def _metrics(rng: np.random.Generator, model: str, label: str) -> Iterator[dict[str, Any]]:
    for attribute, group in _cells():
        hidden = (attribute, group) in HIDDEN
        n = 1204 if attribute == "all" else int(rng.integers(180, 620))
        counts = {"n": n, "n_pos": n // 7, "n_neg": n - n // 7, "n_patients": int(n * 0.68)}
        old = {"80+": -0.08, "65-80": -0.03, "site B": -0.04}.get(group, 0.0)
        for metric in METRICS:
            if metric == "c_index":
                continue
            middle = _MIDDLES.get(metric, 0.82)
            drop = old if metric.startswith("auroc") else -old
            numbers = _around(rng, middle + drop, 0.02 + 8 / n) if not hidden else {}
            few = group in ("80+", "25-50") and not hidden
            yield {
                "model": model,
                "dataset": "audit",
                "label": label,
                "attribute": attribute,
                "group": group,
                "metric": metric,
                **numbers,
                **(counts if not hidden else {}),
                "undefined_share": 0.0,
                "flag": "suppressed" if hidden else "underpowered" if few else "",
                "reason": "fewer than 10 positives" if hidden else "fewer than 50 positives" if few else "",
            }


def _gaps(rng: np.random.Generator, model: str, label: str) -> Iterator[dict[str, Any]]:
    for attribute in GROUPS:
        for gap in GAPS:
            size = 0.11 if attribute == "age" else 0.03
            numbers = _around(rng, size, 0.025)
            p = float(rng.choice([0.0001, 0.0004])) if attribute == "age" else float(rng.uniform(0.02, 0.9))
            yield {
                "model": model,
                "label": label,
                "attribute": attribute,
                "gap": gap,
                **numbers,
                "worst_group": GROUPS[attribute][-1 if attribute == "age" else 1],
                "best_group": GROUPS[attribute][1],
                "num_groups": 2 if attribute != "age" else 4,
                "p": p,
                "null_mean": 0.027,
                "null_95": 0.061,
                "smallest_gap": float(rng.uniform(0.05, 0.2)),
                "flag": "",
                "family": "gaps",
            }


def _coinciding(model: str, label: str) -> dict[str, Any]:
    cell = {"model": model, "label": label, "attribute": "sex", "group": "female", "metric": "tpr", "given": "site"}
    overlap = {"other_group": "site A", "share": 0.9, "association": 0.8, "num_strata": 2}
    return {**cell, **overlap, "value": -0.1, "low": -0.2, "high": 0.0}


def _differences(rng: np.random.Generator, model: str, label: str) -> Iterator[dict[str, Any]]:
    for attribute, group in _cells():
        if attribute != "all" and (attribute, group) not in HIDDEN:
            for metric in ("auroc", "tpr", "fpr"):
                yield {
                    "model": model,
                    "label": label,
                    "attribute": attribute,
                    "group": group,
                    "metric": metric,
                    "reference": "rest",
                    **_around(rng, -0.02, 0.04),
                    "p": float(rng.uniform(0.001, 0.9)),
                    "smallest_gap": 0.09,
                    "family": "differences",
                }


def _paired(rng: np.random.Generator, model: str, other: str, label: str) -> Iterator[dict[str, Any]]:
    for attribute, group in _cells():
        for metric in ("auroc", "tpr"):
            hidden = (attribute, group) in HIDDEN
            numbers = {} if hidden else _around(rng, 0.03, 0.02)
            p = None if hidden else float(rng.uniform(0.00001, 0.01))
            yield {
                "model": model,
                "other": other,
                "label": label,
                "attribute": attribute,
                "group": group,
                "metric": metric,
                **numbers,
                "p": p,
                "delong_p": p if metric == "auroc" else None,
                "family": "models",
            }


def _representation(model: str) -> Iterator[dict[str, Any]]:
    head = {"model": model, "attribute": "sex", "flag": ""}
    for group, share in (("female", 0.4), ("male", 0.6)):
        yield {
            **head,
            "group": group,
            "value": share,
            "low": share - 0.03,
            "high": share + 0.03,
            "reference": 0.5,
            "standardised": (share - 0.5) / 0.495,
            "n_patients": 400,
        }
    yield {**head, "group": "all", "distance": 0.072, "distance_by_chance": 0.05, "n_patients": 800}


def _ordinal(model: str) -> Iterator[dict[str, Any]]:
    for attribute, group in (("all", "all"), ("sex", "female"), ("sex", "male")):
        head = {"model": model, "label": "density", "attribute": attribute, "group": group, "flag": "", "reason": ""}
        for metric in GRADES:
            yield {**head, "metric": metric, "value": 0.6, "low": 0.5, "high": 0.7, "n": 400, "n_patients": 300}
        if attribute != "all":
            p = {"p": 0.4, "p_holm": 0.8, "p_bh": 0.8, "family": f"grades, {model}"}
            yield {**head, "metric": "exact", "reference": "rest", "value": 0.01, "low": -0.1, "high": 0.12, **p}


def _masks(model: str) -> Iterator[dict[str, Any]]:
    for attribute, group in (("all", "all"), ("sex", "female"), ("sex", "male")):
        head = {"model": model, "label": "lesion", "attribute": attribute, "group": group, "flag": "", "reason": ""}
        counted = head | {"n": 400, "n_patients": 300}
        for metric in MASKS:
            yield {**counted, "metric": metric, "method": "model", "value": 0.6, "low": 0.5, "high": 0.7}
        for rival in ("mean mask", "otsu"):
            yield {**counted, "metric": "dice", "method": rival, "value": 0.4, "low": 0.3, "high": 0.5}
            apart = {"value": 0.2, "low": 0.1, "high": 0.3}
            yield {**counted, "metric": "dice", "method": "model", "reference": rival, **apart}
        if attribute != "all":
            p = {"p": 0.4, "p_holm": 0.8, "p_bh": 0.8, "family": f"masks, {model}"}
            apart = {"reference": "rest", "value": 0.01, "low": -0.1, "high": 0.12}
            yield {**counted, "metric": "dice", "method": "model", **apart, **p}


def _risk(model: str) -> Iterator[dict[str, Any]]:
    for attribute, group in (("all", "all"), ("sex", "female"), ("sex", "male")):
        head = {"model": model, "label": "cancer", "attribute": attribute, "group": group, "flag": "", "reason": ""}
        for population in POPULATIONS:
            for metric in YEARLY:
                years = (None,) if metric in CONCORDANCES else (1, 2)
                counts = {"n": 400, "n_pos": 40, "n_neg": 360, "n_patients": 400}
                figures = {"value": 0.7, "low": 0.6, "high": 0.8} | counts
                yield from ({**head, "population": population, "year": y, "metric": metric} | figures for y in years)


def _sources(model: str, label: str) -> Iterator[dict[str, Any]]:
    head = {
        "model": model,
        "label": label,
        "attribute": "site",
        "severity": "note",
        "note": "",
        "n_pos": 90,
        "n_neg": 700,
    }
    for what, value in (("pooled", 0.9), ("within sources", 0.88), ("across sources", 0.91), ("source alone", 0.6)):
        yield {**head, "source": "all", "what": what, "value": value, "low": value - 0.03, "high": value + 0.03}
    yield {
        **head,
        "source": "site A",
        "what": "source minus finding",
        "value": -0.3,
        "low": -0.4,
        "high": -0.2,
        "p": 0.01,
        "p_holm": 0.01,
        "p_bh": 0.01,
        "family": f"sources, {model}",
        "note": "The finding is told better.",
    }


def _requirement(model: str, label: str) -> Iterator[dict[str, Any]]:
    head = {"model": model, "requirement": "tpr gap<=0.2 in sex", "metric": "tpr", "bound": 0.2, "confidence": 0.95}
    several = {"label": "everything it names", "attribute": "sex", "group": "everything it names"}
    yield {**head, **several, "part": "requirement", "verdict": "met", "reason": ""}
    yield {
        **head,
        "part": "group",
        "verdict": "met",
        "reason": "",
        "label": label,
        "attribute": "sex",
        "group": "female",
        "reference": "male",
        "value": 0.03,
        "low": -0.02,
        "high": 0.08,
        "n": 540,
        "n_pos": 80,
        "n_neg": 460,
        "n_patients": 360,
    }


def _adjusted(rows: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Adjust the p-values of a family."""
    if not rows:
        return ()
    p = np.array([np.nan if row.get("p") is None else row["p"] for row in rows])
    pairs = zip(rows, holm(p), benjamini_hochberg(p), strict=True)
    return tuple({**row, "p_holm": None if row.get("p") is None else a, "p_bh": b} for row, a, b in pairs)


def _threshold(rng: np.random.Generator, model: str, label: str) -> dict[str, Any]:
    return {
        "model": model,
        "label": label,
        "value": float(rng.uniform(0.2, 0.6)),
        "policy": "youden",
        "chosen_on": "validation split",
        "n": 640,
        "n_pos": 96,
        "n_patients": 410,
        "hash": "c0ffee" * 10,
    }


def _bins(rng: np.random.Generator, model: str, label: str) -> Iterator[dict[str, Any]]:
    for attribute, group in _cells():
        if (attribute, group) in HIDDEN:
            continue
        for after, bend in (("raw", 1.35), ("temperature", 1.05)):
            for n in range(10):
                middle = (n + 0.5) / 10
                seen = float(np.clip(middle**bend + rng.normal(0, 0.02), 0, 1))
                yield {
                    "model": model,
                    "label": label,
                    "attribute": attribute,
                    "group": group,
                    "bin": n,
                    "low_edge": n / 10,
                    "high_edge": (n + 1) / 10,
                    "mean_score": middle,
                    "observed": seen,
                    "low": max(0.0, seen - 0.08),
                    "high": min(1.0, seen + 0.08),
                    "n": 60,
                    "after": after,
                }


def _decision(model: str, label: str) -> Iterator[dict[str, Any]]:
    for n in range(1, 51):
        t = n / 100
        value = 0.15 * (1 - t) ** 1.5
        yield {
            "model": model,
            "label": label,
            "attribute": "all",
            "group": "all",
            "threshold": t,
            "net_benefit": value,
            "low": value - 0.02,
            "high": value + 0.02,
            "treat_all": 0.15 - 0.85 * t / (1 - t),
        }


def _flow(model: str, labels: Sequence[str]) -> Iterator[dict[str, Any]]:
    steps = (("rows of the label table", 1400), ("joined with scores", 1221), ("rows of the audit", 1204))
    for step, n in steps:
        yield {"model": model, "label": "", "step": step, "n": n}
    for label in labels:
        yield {"model": model, "label": label, "step": "with a truth", "n": 1203}
        yield {"model": model, "label": label, "step": "with truth and score", "n": 1201}


def _unscored(model: str) -> Iterator[dict[str, Any]]:
    """Yield the shares that were never scored: women's more often, beyond chance."""
    for attribute, group, n, share, p in (
        ("all", "all", 1221, 0.04, None),
        ("sex", "female", 600, 0.07, 0.0001),
        ("sex", "male", 621, 0.01, 0.0001),
    ):
        head = {"model": model, "attribute": attribute, "group": group, "flag": ""}
        numbers = {"value": share, "low": share - 0.005, "high": share + 0.02, "n": n, "n_patients": n // 2}
        other = {"difference": 2 * share - 0.08, "difference_low": share - 0.05, "difference_high": share + 0.02}
        tested = {"p": p, "p_holm": p and 2 * p, "p_bh": p, "family": f"never scored, {model}"} if p else {}
        yield {**head, "reason": "", "n_unscored": round(share * n), **numbers, **(other if p else {}), **tested}
        yield {**head, "reason": "failed: truncated", "n_unscored": round(share * n) - 12}
        yield {**head, "reason": "no row of scores", "n_unscored": None}


def _unlabelled(model: str, label: str) -> Iterator[dict[str, Any]]:
    """Yield the shares of scored rows without a label: more often where the score is high, beyond chance."""
    for attribute, group, n, share, p in (
        ("all", "all", 1200, 0.05, None),
        (THIRDS, "lowest third", 400, 0.03, 0.2),
        (THIRDS, "highest third", 400, 0.09, 0.0001),
        ("sex", "female", 600, 0.05, 0.9),
    ):
        tested = {"p": p, "p_holm": p and min(1, 3 * p), "p_bh": p, "family": f"without a label, {model}"} if p else {}
        yield {
            **{"model": model, "label": label, "attribute": attribute, "group": group, "flag": ""},
            **{"value": share, "low": share - 0.01, "high": share + 0.02, "n": n, "n_patients": n // 2},
            **{"difference": share - 0.04, "difference_low": share - 0.06, "difference_high": share - 0.01},
            **{"n_unlabelled": round(share * n), **tested},
        }


def _shortcuts(model: str, label: str) -> Iterator[dict[str, Any]]:
    for stratum, value in ((WITH, 0.91), (WITHOUT, 0.79)):
        yield {
            "model": model,
            "label": label,
            "test": POSITIVES,
            "stratum": stratum,
            "metric": "auroc",
            "value": value,
            "low": value - 0.03,
            "high": value + 0.03,
            "n": 640,
            "n_pos": 74,
            "note": "each against all negatives",
        }
    yield {
        "model": model,
        "label": label,
        "test": POSITIVES,
        "stratum": GAP,
        "metric": "auroc",
        "value": 0.12,
        "low": 0.08,
        "high": 0.16,
        "n": None,
        "n_pos": None,
        "note": "",
    }


def _embeddings(model: str) -> Iterator[dict[str, Any]]:
    for attribute, value, p in (("sex", 0.93, 0.005), ("age", 0.71, 0.005), ("site", 0.52, 0.34)):
        note = "told apart better than chance" if p < 0.05 else "not told apart better than chance in this sample"
        yield {
            "model": model,
            "what": "probe",
            "attribute": attribute,
            "name": "logistic AUROC",
            "value": value,
            "low": value - 0.04,
            "high": min(1.0, value + 0.04),
            "p": p,
            "note": note,
        }
    yield {
        "model": model,
        "what": "reident",
        "attribute": "anybody",
        "name": "verdict",
        "value": 0.41,
        "low": 0.36,
        "high": 0.46,
        "p": 0.001,
        "note": "For 41 % of images the nearest other image is of the same patient; by chance it would be 0.3 %.",
    }
    yield {
        "model": model,
        "what": "drift",
        "attribute": "site",
        "name": "site A to site B",
        "value": 0.12,
        "low": 0.09,
        "high": 0.16,
        "p": 0.01,
        "note": "",
    }


def _points(rng: np.random.Generator, model: str) -> Iterator[dict[str, Any]]:
    for attribute, groups in GROUPS.items():
        shown = [group for group in groups if (attribute, group) not in HIDDEN]
        for n in range(240):
            group = shown[n % len(shown)]
            x, y = rng.normal(0.4 * (n % len(shown)), 1.0), rng.normal(0, 1.0)
            yield {"model": model, "x": float(x), "y": float(y), "attribute": attribute, "group": group}
