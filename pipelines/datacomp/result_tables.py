"""Last stage: the tables, from the results of runs alone.

Usage: python pipelines/datacomp/result_tables.py RUN/SCALE

A figure is the mean over seeds, with an interval over patients (resampled, the same ones for every arm, those of each
source and task by a draw of their own) and over seeds (Student's t). Differences from `none` are paired by both.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from measured_plan import ARMS, BASE, LOSS_ARMS, MEASURES, NUM_RESAMPLES, TASKS
from measuring import in_words, plain
from numpy.typing import NDArray

from medclip.files.output import write_file
from medclip.statistics.estimate import Difference
from medclip.statistics.metrics.classification import FEWEST, HeldOut, figures, numbered
from medclip.statistics.resampling.resampled import Resampled, combination, difference, interval_of, mean, share
from medclip.statistics.resampling.standard_errors import effective_patients
from medclip.statistics.resampling.sums import ratios
from medclip.statistics.resampling.weights import draw_weights
from medclip.statistics.significance import benjamini_hochberg
from medclip.wording import count

Results = Mapping[str, Mapping[int, Any]]
START = "start"
"""The pack that all runs begin with. It is in the tables and in no comparison."""
WAYS = ("text_to_image", "image_to_text")
SHARED_BY = ("source", "modality", "sex", "age")


def read_results(folder: Path) -> tuple[dict[str, dict[int, Any]], tuple[int, ...]]:
    """Read the results, by arm and seed, of those seeds that every arm has: pairs need both.

    Raises:
        SystemExit: Where there is none.
    """
    results: dict[str, dict[int, Any]] = {}
    for path in sorted((folder / "results").glob("*.json")):
        one = json.loads(path.read_text(encoding="utf-8"))
        results.setdefault(one["arm"], {})[one["seed"]] = one
    arms = [name for name in (*ARMS, *LOSS_ARMS) if name in results]
    seeds = sorted(set.intersection(*[set(results[name]) for name in arms])) if arms else []
    if BASE not in arms or not seeds:
        raise SystemExit(f"{folder}: no seed is there of which every arm has a result, {BASE} among them.")
    return {name: results[name] for name in arms}, tuple(seeds)


def recall(asked: Mapping[str, Any], runs: Sequence[Any], source: str, way: str, k: int, draw: int) -> Resampled:
    """Measure R@k of one gallery and way, mean over runs."""
    patients_N = np.array(asked["retrieval"][source], np.int64)
    hits_SN = np.array([np.array(run["ranks"][source][way]) for run in runs])
    hits_SN = ((hits_SN > 0) & (hits_SN <= k)).astype(np.float64)
    weights_PB = draw_weights(int(patients_N.max()) + 1, NUM_RESAMPLES, seed=draw)
    point, drawn_B = ratios(patients_N, weights_PB, hits_SN.mean(axis=0)[None], np.ones((1, len(patients_N))))
    one = share(float(point[0]), drawn_B[0], cases=float(len(patients_N)), patients=effective_patients(patients_N))
    return replace(one, runs_SI=hits_SN.mean(axis=1)[:, None])


def measured_tasks(asked: Mapping[str, Any]) -> list[str]:
    """Return the tasks of which two classes or more have as many test patients as an area needs: few in a smoke run."""
    return [task for task in TASKS if len(_classes(asked["tasks"][task])) > 1]


def _classes(labels: Mapping[str, Any]) -> list[int]:
    """Return the classes with at least `FEWEST` test patients."""
    targets_N, patients_N = (np.array(labels[part], np.int64) for part in ("targets", "patients"))
    return [c for c in sorted(set(targets_N.tolist())) if len(set(patients_N[targets_N == c].tolist())) >= FEWEST]


def areas(asked: Mapping[str, Any], runs: Sequence[Any], task: str, draw: int) -> tuple[Resampled, Resampled]:
    """Measure a task by its own words, and by the mean of unrelated ones, mean over runs."""
    labels = asked["tasks"][task]
    targets_N, patients_N = (np.array(labels[part], np.int64) for part in ("targets", "patients"))
    rows = np.flatnonzero(np.isin(targets_N, _classes(labels)))
    test = HeldOut(targets_N[rows], numbered(patients_N[rows].tolist()), labels["classes"])
    weights_PB = draw_weights(test.num_patients, NUM_RESAMPLES, seed=draw)

    def area(logits_RNC: NDArray[np.float64], ways: int) -> Resampled:
        return figures(logits_RNC[:, rows], test, weights_PB, ["macro_auroc"], runs=(len(runs), ways))["macro_auroc"]

    own = area(np.array([run["scores"][task]["own"] for run in runs]), 1)
    others_SKNC = np.array([run["scores"][task]["unrelated"] for run in runs])
    other = area(others_SKNC.reshape(-1, *others_SKNC.shape[2:]), others_SKNC.shape[1])
    assert other.runs_SI is not None
    # These words are all that are asked and no sample of others: trainings and patients make the interval.
    return own, replace(other, runs_SI=other.runs_SI.mean(axis=1, keepdims=True))


def less(own: Resampled, other: Resampled) -> Resampled:
    """Subtract the figure of other words from that of a task's own, of the same patients and runs."""
    assert own.runs_SI is not None
    assert other.runs_SI is not None
    return combination(
        own.value - other.value,
        own.drawn_B - other.drawn_B,
        [own, other],
        [1, -1],
        runs_SI=own.runs_SI - other.runs_SI,
        same_patients=True,
    )


def averaged(parts: Sequence[Resampled], *, same_patients: bool = False) -> Resampled:
    """Take the mean of figures of the same runs."""
    runs_SI = np.mean([part.runs_SI for part in parts if part.runs_SI is not None], axis=0)
    return mean(parts, runs_SI, same_patients=same_patients)


def figures_of(asked: Mapping[str, Any], runs: Sequence[Any]) -> tuple[dict[str, Resampled], dict[str, Resampled]]:
    """Return the measures of the plan, and the details that they are means of."""
    detail: dict[str, Resampled] = {}
    for draw, source in enumerate(asked["retrieval"]):
        for k in (1, 5):
            for way in WAYS:
                detail[f"{source}, {way.replace('_', ' ')}, R@{k}"] = recall(asked, runs, source, way, k, draw)
    tasks = measured_tasks(asked)
    for draw, task in enumerate(TASKS, start=len(asked["retrieval"])):
        if task not in tasks:
            continue
        own, other = areas(asked, runs, task, draw)
        detail |= {f"{task}, own words": own, f"{task}, unrelated words": other, f"{task}, apart": less(own, other)}
    chief = {}
    for k in (1, 5):
        by_source = [
            averaged([detail[f"{s}, {way.replace('_', ' ')}, R@{k}"] for way in WAYS], same_patients=True)
            for s in asked["retrieval"]
        ]
        chief[f"r{k}"] = averaged(by_source)
    if tasks:
        chief["zero_shot"] = averaged([detail[f"{task}, own words"] for task in tasks])
        chief["word_control"] = averaged([detail[f"{task}, apart"] for task in tasks])
    return {name: chief[name] for name in MEASURES if name in chief}, detail


def compared(of_arms: Mapping[str, Mapping[str, Resampled]]) -> dict[str, dict[str, Difference]]:
    """Compare each arm with `none`, by measure."""
    base = of_arms[BASE]
    return {
        name: {measure: difference(base[measure], figure) for measure, figure in of_arm.items()}
        for name, of_arm in of_arms.items()
        if name not in (BASE, START)
    }


def adjusted(differences: Mapping[str, Mapping[str, Difference]]) -> dict[tuple[str, str], float]:
    """Adjust the p-values of all comparisons together (Benjamini and Hochberg)."""
    family = [(name, measure) for name, of_arm in differences.items() for measure in of_arm]
    p_values = benjamini_hochberg([differences[name][measure].p for name, measure in family])
    return dict(zip(family, map(float, p_values), strict=True))


def _rows(names: Mapping[str, Sequence[str]], head: Sequence[str]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in names.items())]) + "\n"


def _change(one: Difference) -> str:
    value, low, high = (f"{end:+.3f}".replace("-", "−") for end in (one.value, one.low, one.high))
    return value if math.isnan(one.low) else f"{value} ({low} to {high})"


def _words(detail: Mapping[str, Resampled], tasks: Sequence[str]) -> str:
    own, other = (averaged([detail[f"{task}, {whose} words"] for task in tasks]) for whose in ("own", "unrelated"))
    return _change(difference(other, own))


def shares_table(results: Results) -> str:
    """Write the share of pairs that each arm keeps, by source, modality, sex and age; of draws the mean over seeds."""
    names = list(results)
    first = next(iter(results[BASE].values()))["shares"]
    rows: dict[str, list[str]] = {}
    for column in ("all", *SHARED_BY):
        for value, (_, total) in sorted(first.get(column, {}).items()):
            label = "all pairs" if column == "all" else f"{column}: {value}"
            rows[label] = [str(total)] + [
                f"{np.mean([run['shares'][column][value][0] for run in results[name].values()]) / total:.0%}"
                for name in names
            ]
    return _rows(rows, ["pairs of the training split", "number", *names])


def write_tables(folder: Path) -> str:
    """Write figures.json and table.md of a scale, and print the latter.

    Args:
        folder: RUN/SCALE, with `results` and `asked.json`.
    """
    results, seeds = read_results(folder)
    asked = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
    runs = {name: [of_arm[seed] for seed in seeds] for name, of_arm in results.items()}
    both = {name: figures_of(asked, of_arm) for name, of_arm in runs.items()}
    if (start := folder / "start.json").is_file():  # one pack, as often as there are seeds: no run makes it differ
        both = {START: figures_of(asked, [json.loads(start.read_text(encoding="utf-8"))] * len(seeds))} | both
    chief = {name: one[0] for name, one in both.items()}
    differences = compared(chief) if len(chief) > 1 else {}
    p_values = adjusted(differences)
    seen = runs[BASE][0]["seen"]
    tasks, measures = measured_tasks(asked), list(chief[BASE])
    figures_rows = {
        name: [_words(both[name][1], tasks) if m == "word_control" else in_words(plain(interval_of(of[m]))) for m in of]
        for name, of in chief.items()
    }
    few = [task for task in TASKS if task not in tasks]
    change_rows = {
        name: [f"{_change(one)}; {p_values[name, m]:.2f}" for m, one in of.items()] for name, of in differences.items()
    }
    detail_rows = {
        part: [f"{of[1][part].value:.3f}".replace("-", "−") for of in both.values()] for part in both[BASE][1]
    }
    over = "seeds and patients" if len(seeds) > 1 else "patients"
    parts = [
        f"{count(len(seeds), 'seed')} ({', '.join(map(str, seeds))}), {seen:,} samples seen by every run.\n",
        *([f"Not measured, two classes with {FEWEST} test patients are lacking: {', '.join(few)}.\n"] if few else []),
        _rows(figures_rows, ["arm", *measures]),
        f"Less `{BASE}`, 95 % interval over {over}; p, adjusted for all {len(p_values)} comparisons:\n",
        _rows(change_rows, ["arm", *measures]),
        shares_table({name: dict(zip(seeds, of, strict=True)) for name, of in runs.items()}),
        _rows(detail_rows, ["detail", *both]),
    ]
    text = "\n".join(parts)
    write_file(
        folder / "figures.json",
        json.dumps(
            {
                "seeds": list(seeds),
                "seen": seen,
                "figures": {n: {m: f.value for m, f in of.items()} for n, of in chief.items()},
                "differences": {
                    n: {m: plain(d) | {"p": d.p, "p_adjusted": p_values[n, m]} for m, d in of.items()}
                    for n, of in differences.items()
                },
            },
            indent=1,
        )
        + "\n",
    )
    write_file(folder / "table.md", text)
    print(text)
    return text


if __name__ == "__main__":
    write_tables(Path(sys.argv[1]))
