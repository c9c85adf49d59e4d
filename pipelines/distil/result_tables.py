"""Last stage: the tables, from the results of runs alone.

Usage: python pipelines/distil/result_tables.py RUN

A figure is the mean over seeds, with an interval over patients (resampled, the same ones for every arm and task) and
over seeds (Student's t). Differences are paired by both.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean as plain_mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from measured_plan import ARMS, BAR, COMPARED, MEASURES, NUM_RESAMPLES, TESTED, UNTRAINED
from measuring import in_words, plain
from numpy.typing import NDArray

from medclip.files.output import write_file
from medclip.statistics.estimate import Difference
from medclip.statistics.metrics.by_source import joined
from medclip.statistics.metrics.classification import HeldOut, figures
from medclip.statistics.metrics.ranks import resampled_auroc
from medclip.statistics.resampling.resampled import Resampled, difference, interval_of, mean, share
from medclip.statistics.resampling.standard_errors import effective_patients
from medclip.statistics.resampling.weights import draw_weights


def within_sources(
    labels: Mapping[str, Any], scores_RN: NDArray[np.float64], weights_PB: NDArray[np.integer]
) -> Resampled:
    """Measure the area of pairs within a source, mean over runs, as the card has it for findings."""
    positive_N, patients_N = np.array(labels["targets"]) == 1, np.array(labels["patients"], np.int64)
    sources_N = np.array(labels["sources"])
    each = [sources_N == source for source in sorted(set(labels["sources"]))]
    both = [rows for rows in each if len(set(positive_N[rows].tolist())) == 2]
    weights = np.concatenate([np.ones((len(weights_PB), 1)), weights_PB], axis=1)

    def counted(rows_N: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.bincount(patients_N[rows_N], minlength=len(weights)).astype(np.float64) @ weights

    pairs = np.stack([counted(rows & positive_N) * counted(rows & ~positive_N) for rows in both])
    points, drawn = [], []
    for score_N in scores_RN:
        areas = [resampled_auroc(score_N[r], positive_N[r], patients_N[r], weights_PB) for r in both]
        point, drawn_B = joined(np.array([a for a, _ in areas]), np.stack([b for _, b in areas]), pairs)
        points.append(point)
        drawn.append(drawn_B)
    judged = np.any(both, axis=0)
    sides = [judged & positive_N, judged & ~positive_N]
    sizes = float(sides[0].sum()), float(sides[1].sum())
    patients = min(effective_patients(patients_N[side]) for side in sides)
    one = share(float(np.mean(points)), np.mean(drawn, axis=0), cases=min(sizes), patients=patients, pairs=sizes)
    return replace(one, runs_SI=np.array(points)[:, None])


def averaged(parts: Sequence[Resampled]) -> Resampled:
    """Take the mean of figures of the same runs."""
    return mean(parts, np.mean([part.runs_SI for part in parts if part.runs_SI is not None], axis=0))


def tasks_measured(
    asked: Mapping[str, Any], runs: Sequence[Any], metric: str, weights_PB: NDArray[np.integer]
) -> dict[str, Resampled]:
    """Measure each task, mean over runs; of findings the mean of their areas within sources, whatever the metric."""
    by_task: dict[str, list[Resampled]] = {}
    for name, labels in asked.items():
        logits_RNC = np.array([run["scores"][name] for run in runs])
        if labels["classes"] == 1:
            one = within_sources(labels, logits_RNC[:, :, 0], weights_PB)
        else:
            patients_N = np.array(labels["patients"], np.int64)
            test = HeldOut(np.array(labels["targets"], np.int64), patients_N, labels["classes"])
            one = figures(logits_RNC, test, weights_PB[: test.num_patients], [metric], runs=(len(runs), 1))[metric]
        by_task.setdefault(name.partition(":")[0], []).append(one)
    return {task: averaged(parts) for task, parts in by_task.items()}


def by_seed(one: Resampled) -> list[float]:
    """Return the figure of each seed."""
    assert one.runs_SI is not None
    return np.round(one.runs_SI.ravel(), 4).tolist()


def _rows(rows: Mapping[str, Sequence[str]], head: Sequence[str]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())]) + "\n"


def _change(one: Difference) -> str:
    value, low, high = (f"{end:+.3f}".replace("-", "−") for end in (one.value, one.low, one.high))
    return value if math.isnan(one.low) else f"{value} ({low} to {high})"


def verdict(one: Difference) -> str:
    """Say what a difference from the teacher means for the bar."""
    if one.value < BAR:
        return "missed"
    return "met, with its whole interval" if one.low >= BAR else "met by the value, not shown: the interval crosses it"


def _tested(name: str, other: str, one: Difference) -> str:
    """Write the p of a comparison, adjusted for how many there are in the plan."""
    return f"{name} less {other}: p = {min(1.0, len(TESTED) * one.p):.2g}, adjusted for {len(TESTED)} comparisons.\n"


def costs(results: Mapping[str, Mapping[int, Any]], reinforced: Mapping[str, Any]) -> str:
    """Write what reinforcing and training cost, in processor time of one thread."""
    taught, plainly = (results[name] for name in ("distil", "warm"))
    ratios = [taught[seed]["cpu_s"] / plainly[seed]["cpu_s"] for seed in sorted(set(taught) & set(plainly))]
    epochs = next(iter(taught.values()))["epochs"]
    of_epoch = plain_mean(run["cpu_s"] for run in plainly.values()) / epochs
    return (
        f"Training with stored answers / plain training, processor time, by seed: "
        f"{', '.join(f'{ratio:.2f}' for ratio in ratios)}. Storing the answers cost {reinforced['cpu_s']:.0f} s and "
        f"{reinforced['bytes'] / 1e6:.1f} MB, {reinforced['cpu_s'] / of_epoch:.1f} plain epochs of {of_epoch:.0f} s.\n"
    )


def write_tables(run: Path) -> str:
    """Write figures.json and table.md of a run, and return the latter.

    Raises:
        SystemExit: Where there is no seed that every arm has.
    """
    folder = run / "results_test"

    def read(path: Path) -> Any:
        return json.loads(path.read_text(encoding="utf-8"))

    results = {
        name: {one["seed"]: one for path in sorted(folder.glob(f"{name}_*.json")) if (one := read(path))}
        for name in ARMS
    }
    results = {name: of for name, of in results.items() if of}
    seeds = sorted(set.intersection(*map(set, results.values()))) if results else []
    if not seeds:
        raise SystemExit(f"{run}: there is no seed of which every arm has a result.")
    asked = read(run / "asked_test.json")
    runs = {name: [read(folder / f"{name}.json")] * len(seeds) for name in UNTRAINED}
    runs |= {name: [of[seed] for seed in seeds] for name, of in results.items()}
    num_patients = 1 + max(max(labels["patients"]) for labels in asked.values())
    weights_PB = draw_weights(num_patients, NUM_RESAMPLES, seed=0)
    detail = {m: {name: tasks_measured(asked, of, m, weights_PB) for name, of in runs.items()} for m in MEASURES}
    chief = {m: {name: averaged(list(of.values())) for name, of in of_arms.items()} for m, of_arms in detail.items()}
    pairs = [(a, b) for a, b in COMPARED if a in runs and b in runs]
    apart = {m: {pair: difference(of[pair[1]], of[pair[0]]) for pair in pairs} for m, of in chief.items()}
    first = next(iter(MEASURES))
    speeds = {
        name: [f"{s['images_s']:.0f}", f"{s['ratio']:.2f} ({s['least']:.2f} to {s['most']:.2f})"]
        for name, s in read(folder / "speed.json").items()
    }
    tasks = {task: [f"{of[task].value:.3f}" for of in detail[first].values()] for task in detail[first]["teacher"]}
    to_teacher = apart[first].get(("distil", "teacher"))
    parts = [
        f"{len(seeds)} seeds ({', '.join(map(str, seeds))}); 95 % intervals over patients and seeds.\n",
        _rows(
            {n: [in_words(plain(interval_of(chief[m][n]))) for m in MEASURES] for n in runs}, ["", *MEASURES.values()]
        ),
        _rows(
            {f"{a} less {b}": [_change(apart[m][a, b]) for m in MEASURES] for a, b in pairs}, ["", *MEASURES.values()]
        ),
        *[_tested(a, b, apart[first][a, b]) for a, b in pairs if (a, b) in TESTED],
        *([] if to_teacher is None else [f"The bar, at most {-BAR:.2f} below the teacher: {verdict(to_teacher)}.\n"]),
        _rows(tasks, ["task", *runs]),
        costs(results, read(run / "reinforced.json")) if {"distil", "warm"} <= set(results) else "",
        _rows(speeds, ["image tower, one thread", "images/s", "times the teacher's (range of rounds)"]),
    ]
    text = "\n".join(part for part in parts if part)
    stored = {
        m: {
            "figures": {name: plain(interval_of(one)) for name, one in of.items()},
            "differences": {f"{a} less {b}": plain(apart[m][a, b]) for a, b in pairs},
            "by seed": {name: by_seed(of[name]) for name in results},
        }
        for m, of in chief.items()
    }
    write_file(run / "figures.json", json.dumps({"seeds": seeds, **stored}, indent=1) + "\n")
    write_file(run / "table.md", text)
    return text


if __name__ == "__main__":
    print(write_tables(Path(sys.argv[1])))
