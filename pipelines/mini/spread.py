"""How much trainings by one recipe differ: the zero-shot figure of each task of several seeds, side by side.

Usage: python pipelines/mini/spread.py FIGURES.json...

Each file is what evaluate.py wrote of one training, on the same patients. Intervals of a figure resample patients and
say nothing of another training: this does, as far as the lowest and the highest of a few trainings go.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PRIMARY = "balanced_accuracy"


def values_of(figures: Mapping[str, Any]) -> Iterator[tuple[str, str, float, float]]:
    """Yield the name of each task, or finding, with metric, zero-shot figure and chance."""
    for task, of in figures.items():
        metrics = of.get("metrics")
        if not metrics:
            continue
        metric = PRIMARY if PRIMARY in metrics else "auroc"
        named = {task: metrics[metric]} if metric == PRIMARY else {f"{task} {c}": m for c, m in metrics[metric].items()}
        for name, measured in named.items():
            yield name, metric, measured["zero_shot"]["value"], measured["zero_shot"]["chance"]


def spread(trainings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each task that every training was measured on.

    Returns:
        Task, metric, chance, the figure of each training in order, and the highest less the lowest.
    """
    tables = [{name: (metric, value, chance) for name, metric, value, chance in values_of(of)} for of in trainings]
    rows = []
    for name, (metric, _, chance) in tables[0].items():
        if all(name in table for table in tables):
            values = [table[name][1] for table in tables]
            rows.append(
                {
                    "task": name,
                    "metric": metric,
                    "chance": chance,
                    "values": values,
                    "spread": max(values) - min(values),
                }
            )
    return rows


def main(*paths: str) -> None:
    """Print the table."""
    rows = spread([json.loads(Path(path).read_text()) for path in paths])
    print("| task | metric | chance | trainings | spread |\n|---|---|---|---|---|")
    for row in rows:
        values = ", ".join(f"{value:.2f}" for value in row["values"])
        print(f"| {row['task']} | {row['metric']} | {row['chance']:.2f} | {values} | {row['spread']:.2f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
