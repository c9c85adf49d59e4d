"""From predictions to figures: every method at every K with intervals, paired differences, harmonic means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from medclip.evaluation.few_shot.bootstrap import Draws, Estimate, draw, estimate, spread
from medclip.evaluation.few_shot.plan import Protocol, RunKey, Variant
from medclip.evaluation.few_shot.results import DECIMALS, Cell, Cost, Difference, Failure, Novel
from medclip.evaluation.few_shot.store import Run
from medclip.statistics.metrics.weighted import METRICS, HeldOut, weighted_metrics
from medclip.statistics.tests.multiple_testing import holm

Runs = Mapping[RunKey, Run]
Values = dict[tuple[str, int | None], dict[str, NDArray[np.float64]]]
"""(method, K) to metric to [S, I, 1 + B]; K None for the mean over K ≥ 4. Without those that have no figure."""
_AT_ONCE = 64
"""Runs whose predictions are weighted together; keeps memory small."""


def values_of(protocol: Protocol, runs: Runs, test: HeldOut, draws: Draws) -> Values:
    """Compute each metric of each run under every weighting of the test patients.

    A method has a figure at K only where all its runs there have predictions: leaving out the draws on which it failed
    would favour it.
    """
    done = [key for key, run in runs.items() if run.logits_NC is not None and key.part == "all"]
    of_run: dict[RunKey, dict[str, NDArray[np.float64]]] = {}
    for start in range(0, len(done), _AT_ONCE):
        some = done[start : start + _AT_ONCE]
        found = weighted_metrics(np.stack([_logits(runs[key]) for key in some]), test, draws.images_NB)
        for n, key in enumerate(some):
            of_run[key] = {metric: values[n] for metric, values in found.items()}
    values: Values = {}
    for variant in protocol.variants:
        for shots in protocol.shots:
            keys = [[protocol.key_of(variant, shots, s, i) for i in protocol.inits] for s in protocol.seeds]
            if all(key in of_run for row in keys for key in row):
                values[variant.label, shots] = {
                    m: np.stack([np.stack([of_run[key][m] for key in row]) for row in keys]) for m in METRICS
                }
        averaged = [values.get((variant.label, k)) for k in protocol.averaged]
        if all(v is not None for v in averaged):
            values[variant.label, None] = {m: np.mean([v[m] for v in averaged if v], axis=0) for m in METRICS}
    return values


def cells_of(protocol: Protocol, values: Values, draws: Draws) -> tuple[Cell, ...]:
    """Give every method's figures, by method, K and metric."""
    cells = []
    for (label, shots), by_metric in values.items():
        for metric, found in by_metric.items():
            if np.isnan(found).any():
                continue
            e = rounded(estimate(found, draws))
            sd_shots, sd_inits = (None, None) if protocol.variant(label).constant else spread(found[:, :, 0])
            cells.append(
                Cell(label, shots, metric, e.value, e.low, e.high, _round(sd_shots), _round(sd_inits))
            )  # fmt: skip
    return tuple(cells)


def differences_of(protocol: Protocol, values: Values, draws: Draws) -> tuple[Difference, ...]:
    """Give every method minus each reference; p-values are adjusted over the methods of one reference, K and metric."""
    found = []
    for reference in protocol.references:
        for shots in (*protocol.shots, None):
            base = values.get((reference, shots))
            others = [v.label for v in protocol.variants if v.label != reference and (v.label, shots) in values]
            for metric in METRICS:
                if base is None or not others or np.isnan(base[metric]).any():
                    continue
                estimates = [
                    estimate(values[label, shots][metric] - base[metric], draws, bounds=(-1, 1)) for label in others
                ]
                adjusted = holm([e.p for e in estimates]).tolist()
                for label, plain, p_holm in zip(others, estimates, adjusted, strict=True):
                    e = rounded(plain)
                    found.append(
                        Difference(
                            label, reference, shots, metric, e.value, e.low, e.high, e.p, round(p_holm, DECIMALS),
                            len(others),
                        )
                    )  # fmt: skip
    return tuple(found)


def novel_of(
    protocol: Protocol, runs: Runs, test: HeldOut, num_base: int, *, num_replicates: int, seed: int
) -> tuple[Novel, ...]:
    """Give base, novel and both harmonic means of every method that can answer for classes it never saw.

    Args:
        protocol: What was compared.
        runs: Its runs; `logits_NC` is over the base classes' images in the order of `test`, `novel_NC` over the others.
        test: All test images, of base and novel classes: patients are drawn once for both sides, since one may have
            images on either.
        num_base: How many classes were learned; the first ones.
        num_replicates: Bootstrap replicates.
        seed: Of their draw.
    """
    draws = draw(test, len(protocol.seeds), len(protocol.inits), num_replicates=num_replicates, seed=seed)
    of_base = test.targets < num_base
    tests = (
        HeldOut(test.targets[of_base], test.patients[of_base], num_base),
        HeldOut(test.targets[~of_base] - num_base, test.patients[~of_base], test.num_classes - num_base),
    )
    found = []
    for variant in protocol.variants:
        keys = list(protocol.novel_keys(variant)) if variant.transfers else []
        if not keys or any(key not in runs or runs[key].logits_NC is None for key in keys):
            continue
        shape = (len(protocol.seeds), len(protocol.inits))
        sides = [
            weighted_metrics(np.stack(logits), side, draws.images_NB[rows])
            for logits, side, rows in zip(
                ([_logits(runs[k]) for k in keys], [_novel(runs[k]) for k in keys]),
                tests,
                (of_base, ~of_base),
                strict=True,
            )
        ]
        for metric in METRICS:
            b, n = (np.broadcast_to(_shaped(side[metric], shape), (*shape, num_replicates + 1)) for side in sides)
            if np.isnan(b).any() or np.isnan(n).any():
                continue
            of_each = [estimate(v, draws) for v in (b, n, _harmonic_of_means(b, n), _harmonic(b, n))]
            parts = [{"value": e.value, "low": e.low, "high": e.high} for e in map(rounded, of_each)]
            found.append(Novel(variant.label, metric, keys[0].shots or protocol.novel_shots, *parts))
    return tuple(found)


def _harmonic(b: NDArray[np.float64], n: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2 * b * n / np.maximum(b + n, 1e-12)


def _harmonic_of_means(b_SIB: NDArray[np.float64], n_SIB: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give what each run adds to the harmonic mean of the two means over runs, whose mean over runs it is.

    The means over runs are what counts, so a run enters by how far it is from them, to first order (the delta method).
    """
    b, n = (v.mean(axis=(0, 1)) for v in (b_SIB, n_SIB))
    squared = np.maximum(b + n, 1e-12) ** 2
    return _harmonic(b, n) + (2 * n**2 * (b_SIB - b) + 2 * b**2 * (n_SIB - n)) / squared


def costs_of(protocol: Protocol, runs: Runs) -> tuple[Cost, ...]:
    """Give median seconds and numbers trained, by method and K."""
    costs = []
    for variant in protocol.variants:
        for shots in (0,) if variant.constant else protocol.shots:
            done = [
                run.facts for key, run in runs.items()
                if key.label == variant.label and key.shots == shots and key.part == "all" and not run.failed
            ]  # fmt: skip
            if done:
                costs.append(
                    Cost(
                        variant.label,
                        shots,
                        round(float(np.median([f["fit_seconds"] for f in done])), 3),
                        round(float(np.median([f["predict_seconds"] for f in done])), 3),
                        int(np.median([f["num_trainable"] for f in done])),
                        variant.entry.trains_towers,
                    )
                )
    return tuple(costs)


def failures_of(runs: Runs) -> tuple[Failure, ...]:
    """Name the runs without predictions and why."""
    return tuple(
        Failure(k.label, k.shots, k.seed, k.init, k.part, str(r.facts["reason"]), str(r.facts["message"]))
        for k, r in runs.items()
        if r.failed
    )


def runs_of(runs: Runs, variant: Variant, shots: int) -> list[Run]:
    """Give the runs of a method at K shots that have predictions."""
    wanted = 0 if variant.constant else shots
    return [
        run for key, run in runs.items()
        if key.label == variant.label and key.shots == wanted and key.part == "all" and not run.failed
    ]  # fmt: skip


def span(numbers: Sequence[int]) -> str:
    """Write what numbers are: 64, or 60–64 where they differ."""
    found = [n for n, _ in groupby(sorted(numbers))]
    return f"{found[0]}–{found[-1]}" if len(found) > 1 else f"{found[0]}" if found else "0"


def rounded(e: Estimate) -> Estimate:
    """Round to what is written."""
    return Estimate(round(e.value, DECIMALS), _round(e.low), _round(e.high), round(e.p, DECIMALS))


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)


def _shaped(values_RB: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    return values_RB[:, None] if len(values_RB) == 1 else values_RB.reshape(*shape, -1)


def _logits(run: Run) -> NDArray[np.float32]:
    assert run.logits_NC is not None
    return run.logits_NC


def _novel(run: Run) -> NDArray[np.float32]:
    assert run.novel_NC is not None
    return run.novel_NC
