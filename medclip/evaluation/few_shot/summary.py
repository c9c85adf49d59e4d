"""From predictions to figures: every method at every K with intervals, paired differences, harmonic means, mistakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.deviations import deviations_of
from medclip.evaluation.few_shot.comparison import DECIMALS, Cell, Confusion, Cost, Failure, Mistake, Novel, Paired
from medclip.evaluation.few_shot.labelled_data import FewShotData
from medclip.evaluation.few_shot.method_run import Run
from medclip.evaluation.few_shot.protocol import NOVEL_SHOTS, Protocol, RunKey, Variant
from medclip.statistics.estimate import Estimate
from medclip.statistics.metrics.classification import (
    METRICS,
    OF_STEPS,
    HeldOut,
    Shares,
    mean_over_runs,
    predictions,
    ranked_scores,
    shares_of,
)
from medclip.statistics.resampling.resampled import Resampled, combination, difference, interval_of, mean
from medclip.statistics.resampling.weights import draw_weights
from medclip.statistics.significance import holm

Runs = Mapping[RunKey, Run]
Values = dict[tuple[str, int | None], dict[str, Resampled]]
"""(method, K) to metric to its mean over draws of shots and initialisations; K None for the mean over K ≥ 4. Without
those that have no figure."""


def values_of(protocol: Protocol, runs: Runs, test: HeldOut, weights_PB: NDArray[np.integer]) -> Values:
    """Measure each method at each K in every resample of the test patients.

    A method has a figure at K only where all its runs there have predictions: leaving out the draws on which it failed
    would favour it.
    """
    shape = (len(protocol.seeds), len(protocol.inits))
    values: Values = {}
    for variant in protocol.variants:
        for shots in protocol.shots:
            keys = [protocol.key_of(variant, shots, s, i) for s in protocol.seeds for i in protocol.inits]
            if not all(key in runs and runs[key].logits_NC is not None for key in keys):
                continue
            if variant.constant and (before := values.get((variant.label, protocol.shots[0]))):
                values[variant.label, shots] = before
                continue
            parts = _shares([_present(runs[key].logits_NC) for key in keys], keys, test, weights_PB)
            values[variant.label, shots] = {name: mean_over_runs(p, shape) for name, p in parts.items()}
        averaged = [values.get((variant.label, k)) for k in protocol.averaged]
        if averaged and all(averaged):
            at_each = [v for v in averaged if v]
            values[variant.label, None] = {
                name: mean(
                    [v[name] for v in at_each],
                    np.mean([_runs(v[name]) for v in at_each], axis=0),
                    same_patients=True,
                )
                for name in at_each[0]
            }
    return values


def cells_of(protocol: Protocol, values: Values) -> tuple[Cell, ...]:
    """List every method's figures, by method, K and metric."""
    cells = []
    for (label, shots), by_metric in values.items():
        for metric, figure in by_metric.items():
            e = interval_of(figure)
            sd_shots, sd_inits = (None, None) if protocol.variant(label).constant else spread(_runs(figure))
            cells.append(
                Cell(label, shots, metric, round(e.value, DECIMALS), *map(_round, (e.low, e.high, sd_shots, sd_inits)))
            )
    return tuple(cells)


def differences_of(protocol: Protocol, values: Values) -> tuple[Paired, ...]:
    """List every method minus each reference; p-values are adjusted over the methods of one reference, K and metric."""
    rows = []
    for reference in protocol.references:
        for shots in (*protocol.shots, None):
            base = values.get((reference, shots), {})
            others = [v.label for v in protocol.variants if v.label != reference and (v.label, shots) in values]
            for metric in (*METRICS, *OF_STEPS):
                if metric not in base or not others:
                    continue
                compared = [difference(base[metric], values[label, shots][metric]) for label in others]
                adjusted = holm([d.p for d in compared]).tolist()
                for label, d, p_holm in zip(others, compared, adjusted, strict=True):
                    ends = (_round(d.low), _round(d.high))
                    value, p, p_holm = round(d.value, DECIMALS), _round(d.p), _round(p_holm)
                    rows.append(Paired(label, reference, shots, metric, value, *ends, p, p_holm, len(others)))
    return tuple(rows)


def novel_of(
    protocol: Protocol, runs: Runs, test: HeldOut, num_base: int, *, num_replicates: int, seed: int
) -> tuple[Novel, ...]:
    """Measure base, novel and both harmonic means of every method that can answer for classes it never saw.

    Args:
        protocol: Plan of the comparison.
        runs: Runs of the protocol; `logits_NC` is over the base classes' images in the order of `test`, `novel_NC` over
            the others.
        test: All test images, of base and novel classes: patients are drawn once for both sides, since one may have
            images on either.
        num_base: Number of classes that were learned; the first ones.
        num_replicates: Resamples of patients.
        seed: Seed of the draw of patients.
    """
    weights_PB = draw_weights(test.num_patients, num_replicates, seed=seed)
    of_base = test.targets < num_base
    tests = (
        HeldOut(test.targets[of_base], test.patients[of_base], num_base),
        HeldOut(test.targets[~of_base] - num_base, test.patients[~of_base], test.num_classes - num_base),
    )
    shape = (len(protocol.seeds), len(protocol.inits))
    rows = []
    for variant in protocol.variants:
        keys = list(protocol.novel_keys(variant)) if variant.transfers else []
        if not keys or any(key not in runs or runs[key].logits_NC is None for key in keys):
            continue
        of_each = ([_present(runs[k].logits_NC) for k in keys], [_present(runs[k].novel_NC) for k in keys])
        sides = [_shares(logits, keys, side, weights_PB) for logits, side in zip(of_each, tests, strict=True)]
        grid = shape if len(keys) > 1 else (1, 1)
        for metric in METRICS:
            if not all(metric in side for side in sides):
                continue
            b, n = (mean_over_runs(side[metric], grid) for side in sides)
            parts = [_entry(interval_of(figure)) for figure in (b, n, *_harmonic_means(b, n))]
            rows.append(Novel(variant.label, metric, keys[0].shots or NOVEL_SHOTS, *parts))
    return tuple(rows)


def spread(values_SI: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Compute the standard deviation over draws of shots and over initialisations; None where there is only one.

    Over shots: of the means over initialisations. Over initialisations: within each draw of shots, pooled.
    """
    num_seeds, num_inits = values_SI.shape
    shots = float(values_SI.mean(axis=1).std(ddof=1)) if num_seeds > 1 else None
    inits = float(np.sqrt(values_SI.var(axis=1, ddof=1).mean())) if num_inits > 1 else None
    return shots, inits


def _shares(
    logits: list[NDArray[np.float32]], keys: list[RunKey], test: HeldOut, weights_PB: NDArray[np.integer]
) -> dict[str, tuple[Shares, ...]]:
    """Measure runs; one that stands for several initialisations is measured once."""
    first = {key: n for n, key in reversed(list(enumerate(keys)))}
    once = sorted(first.values())
    place = [once.index(first[key]) for key in keys]
    computed = shares_of(np.stack([logits[n] for n in once]), test, weights_PB, (*METRICS, *OF_STEPS))
    return {
        name: tuple(
            replace(p, point_R=p.point_R[place], drawn_RB=p.drawn_RB[place], cases_R=p.cases_R[place]) for p in parts
        )
        for name, parts in computed.items()
    }


def _harmonic_means(b: Resampled, n: Resampled) -> tuple[Resampled, Resampled]:
    """Take the harmonic mean of the two means over runs, and the mean over runs of each run's harmonic mean.

    The means over runs are what the first is made of, so a run enters it by how far it is from them, to first order
    (the delta method).
    """
    b_SI, n_SI = _runs(b), _runs(n)
    squared = max(b.value + n.value, 1e-12) ** 2
    slopes = (2 * n.value**2 / squared, 2 * b.value**2 / squared)
    value, drawn_B = float(_harmonic(b.value, n.value)), _harmonic(b.drawn_B, n.drawn_B)
    moved_SI = value + slopes[0] * (b_SI - b.value) + slopes[1] * (n_SI - n.value)
    of_means = combination(value, drawn_B, [b, n], slopes, runs_SI=moved_SI, same_patients=True)
    each_SI = _harmonic(b_SI, n_SI)
    of_each = replace(of_means, value=float(each_SI.mean()), drawn_B=drawn_B + each_SI.mean() - value, runs_SI=each_SI)
    return of_means, of_each


def _harmonic(b: Any, n: Any) -> Any:
    return 2 * b * n / np.maximum(b + n, 1e-12)


def _runs(figure: Resampled) -> NDArray[np.float64]:
    assert figure.runs_SI is not None
    return figure.runs_SI


def _entry(e: Estimate) -> dict[str, float | None]:
    return {"value": round(e.value, DECIMALS), "low": _round(e.low), "high": _round(e.high)}


def costs_of(protocol: Protocol, runs: Runs) -> tuple[Cost, ...]:
    """Return median seconds and numbers trained, by method and K."""
    costs = []
    for variant in protocol.variants:
        for shots in (0,) if variant.constant else protocol.shots:
            done = [
                run.facts
                for key, run in runs.items()
                if key.label == variant.label and key.shots == shots and key.part == "all" and not run.failed
            ]
            if done:
                costs.append(
                    Cost(
                        variant.label,
                        shots,
                        round(float(np.median([f["fit_seconds"] for f in done])), 3),
                        round(float(np.median([f["predict_seconds"] for f in done])), 3),
                        int(np.median([f["num_trainable"] for f in done])),
                        variant.entry.trains_towers,
                        *_budget([f.get("settings", {}) for f in done]),
                    )
                )
    return tuple(costs)


def _budget(settings: Sequence[Mapping[str, Any]]) -> tuple[int | None, int | None, str]:
    """Return images at each rate, rates tried and what was chosen on; the most of all draws where they differ."""
    images = [s["images"] for s in settings if "images" in s]
    chosen = dict.fromkeys(str(s["chosen_on"]) for s in settings if "chosen_on" in s)
    rates = max(len(s.get("log_loss_by_rate", (0,))) for s in settings) if images else None
    return max(images, default=None), rates, " or ".join(chosen)


def deviations_by_method(protocol: Protocol, runs: Runs) -> dict[str, tuple[str, ...]]:
    """Return where the runs of each method differ from its published code, in whatever run they do."""
    rows: dict[str, dict[str, None]] = {}
    for key, run in runs.items():
        if not run.failed:
            method = protocol.variant(key.label).method
            rows.setdefault(key.label, {}).update(dict.fromkeys(deviations_of(method, run.facts.get("settings", {}))))
    return {label: tuple(texts) for label, texts in rows.items() if texts}


def failures_of(runs: Runs) -> tuple[Failure, ...]:
    """Name the runs without predictions and why."""
    return tuple(
        Failure(k.label, k.shots, k.seed, k.init, k.part, str(r.facts["reason"]), str(r.facts["message"]))
        for k, r in runs.items()
        if r.failed
    )


def runs_of(runs: Runs, variant: Variant, shots: int) -> list[Run]:
    """Return the runs of a method at K shots that have predictions."""
    wanted = 0 if variant.constant else shots
    return [
        run
        for key, run in runs.items()
        if key.label == variant.label and key.shots == wanted and key.part == "all" and not run.failed
    ]


def span(numbers: Sequence[int]) -> str:
    """Write what numbers are: 64, or 60–64 where they differ."""
    distinct = [n for n, _ in groupby(sorted(numbers))]
    return f"{distinct[0]}–{distinct[-1]}" if len(distinct) > 1 else f"{distinct[0]}" if distinct else "0"


def _round(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else round(value, DECIMALS)


def _present(logits_NC: NDArray[np.float32] | None) -> NDArray[np.float32]:
    assert logits_NC is not None
    return logits_NC


MAX_MISTAKES = 12
_NONE = "none of them"


def confusion_of(data: FewShotData, method: str, shots: int, runs: Sequence[Run]) -> Confusion:
    """Count one method's answers over its runs at K shots.

    Args:
        data: Data with the test images.
        method: Label of the method.
        shots: Number of shots, K.
        runs: Runs of the method, all with predictions; at least one.
    """
    logits_RNC = np.stack([run.logits_NC for run in runs if run.logits_NC is not None])
    predicted = predictions(logits_RNC, data.examples.multilabel)
    targets = data.examples.targets[list(data.test)]
    counts = _multilabel_counts(targets, predicted) if data.examples.multilabel else _counts(targets, predicted, data)
    if data.examples.multilabel:
        return Confusion(method, shots, counts, _multilabel_mistakes(data, targets, predicted))
    chances = np.mean([ranked_scores(logits_NC, False) for logits_NC in logits_RNC], axis=0)
    return Confusion(
        method, shots, counts, _mistakes(data, targets, predicted, chances[np.arange(len(targets)), targets])
    )


def _counts(targets: NDArray, said_RN: NDArray, data: FewShotData) -> tuple[tuple[float, ...], ...]:
    num_classes, num_runs = len(data.text.names), len(said_RN)
    pairs = np.bincount((targets * num_classes + said_RN).ravel(), minlength=num_classes**2) / num_runs
    return _rows(pairs.reshape(num_classes, num_classes))


def _multilabel_counts(targets: NDArray, said_RNC: NDArray) -> tuple[tuple[float, ...], ...]:
    present, absent = targets == 1, targets == 0
    parts = (said_RNC & present, ~said_RNC & present, said_RNC & absent, ~said_RNC & absent)
    return _rows(np.stack([p.sum(axis=1).mean(axis=0) for p in parts], axis=1))


def _mistakes(data: FewShotData, targets: NDArray, said_RN: NDArray, chances_N: NDArray) -> tuple[Mistake, ...]:
    """Of images that are wrong equally often, those whose true class was thought least likely come first."""
    wrong_N = (said_RN != targets).sum(axis=0)
    names, mistakes = data.text.names, []
    for n in _most(wrong_N, chances_N):
        common = Counter(said_RN[said_RN[:, n] != targets[n], n].tolist()).most_common(1)[0][0]
        mistakes.append(_mistake(data, n, int(wrong_N[n]), len(said_RN), names[targets[n]], names[common]))
    return tuple(mistakes)


def _multilabel_mistakes(data: FewShotData, targets: NDArray, said_RNC: NDArray) -> tuple[Mistake, ...]:
    """An image counts as wrong in a run where any known class is; the most wrong classes come first."""
    is_known = ~np.isnan(targets)
    wrong_RNC = (said_RNC != (targets == 1)) & is_known
    wrong_N, classes_N = wrong_RNC.any(axis=2).sum(axis=0), wrong_RNC.sum(axis=(0, 2))
    mistakes = []
    for n in _most(wrong_N, -classes_N):
        usual_C = (said_RNC[:, n].mean(axis=0) > 0.5) & is_known[n]
        mistakes.append(
            _mistake(data, n, int(wrong_N[n]), len(said_RNC), _listed(data, targets[n] == 1), _listed(data, usual_C))
        )
    return tuple(mistakes)


def _mistake(data: FewShotData, n: int, wrong: int, runs: int, true: str, predicted: str) -> Mistake:
    row = data.test[n]
    return Mistake(data.unit(row).number, row, wrong, runs, true, predicted)


def _most(wrong_N: NDArray, then_N: NDArray) -> list[int]:
    """Rows that are wrong at all, the most often wrong first, then the lowest of `then_N`."""
    order = np.lexsort((then_N, -wrong_N))[:MAX_MISTAKES]
    return [int(n) for n in order if wrong_N[n] > 0]


def _listed(data: FewShotData, chosen_C: NDArray) -> str:
    return ", ".join(name for name, is_there in zip(data.text.names, chosen_C, strict=True) if is_there) or _NONE


def _rows(values: NDArray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(float(v), 1) for v in row) for row in values)
