"""Stage 4 of the smoke run: the figures of several seeds beside each other, and whether each is above its floor.

Usage: python pipelines/unimed/smoke_summary.py RUN FLOORS.csv

Reads RUN/seed-*/evaluate/evaluate.json and writes RUN/summary.md and RUN/summary.json. Only images that were not
trained on count. Ends with 1 where the worst seed of a set is below the floor that FLOORS.csv states, or a set is not
there.
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CHANCE = 0.5


@dataclass(frozen=True)
class Line:
    """One set over the seeds."""

    set: str
    metric: str
    chance: float
    floor: float
    num_images: int
    values: tuple[float, ...]
    """One for each seed, in the order of the seeds."""
    interval: tuple[float, float]
    """Of the worst seed: its own, from resampled patients."""

    @property
    def holds(self) -> bool:
        """Whether every seed is above the floor."""
        return min(self.values) >= self.floor


def read(run: Path) -> dict[int, dict[str, Any]]:
    """Read the sets of each seed by their id."""
    folders = {int(p.name.removeprefix("seed-")): p for p in run.glob("seed-*") if (p / "evaluate").is_dir()}
    return {
        seed: {s["id"]: s for s in json.loads((folders[seed] / "evaluate" / "evaluate.json").read_text())["sets"]}
        for seed in sorted(folders)
    }


def lines(seeds: dict[int, dict[str, Any]], floors: list[dict[str, str]]) -> list[Line]:
    """Put the seeds of each set side by side.

    Raises:
        SystemExit: A set that has a floor was not measured.
    """
    rows = []
    for floor in floors:
        name, metric = floor["set"], floor["metric"]
        measured = [sets[name] for sets in seeds.values() if name in sets]
        if len(measured) < len(seeds) or not seeds:
            raise SystemExit(f"{name} was measured with {len(measured)} of {len(seeds)} seeds")
        figures = [(s["unseen"] or s["figures"])[metric] for s in measured]
        worst = min(figures, key=lambda f: f["value"])
        chance = 1 / len(measured[0]["classes"]) if metric == "balanced_accuracy" else CHANCE
        values = tuple(f["value"] for f in figures)
        interval = worst["low"], worst["high"]
        rows.append(Line(name, metric, chance, float(floor["floor"]), measured[0]["num_unseen"], values, interval))
    return rows


def markdown(rows: list[Line], seeds: list[int]) -> str:
    """Write the table."""
    named = f"seeds {', '.join(map(str, seeds))}"
    head = f"| set | metric | images not trained on | {named} | median | worst, with its interval | floor | chance |"
    text = [head, "|---" * 8 + "|"]
    for row in rows:
        values = ", ".join(f"{v:.2f}" for v in row.values)
        low, high = row.interval
        worst = f"{min(row.values):.2f} [{low:.2f}, {high:.2f}]"
        below = "" if row.holds else " **below its floor**"
        cells = (
            row.set,
            row.metric,
            row.num_images,
            values,
            f"{statistics.median(row.values):.2f}",
            f"{worst}{below}",
            f"{row.floor:.2f}",
            f"{row.chance:.2f}",
        )
        text.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(text) + "\n"


def main(run: Path, floors: Path) -> int:
    """Write the summary; 1 where a figure is below its floor."""
    with floors.open(newline="", encoding="utf-8") as f:
        stated = list(csv.DictReader(f))
    seeds = read(run)
    rows = lines(seeds, stated)
    text = markdown(rows, list(seeds))
    (run / "summary.md").write_text(text, encoding="utf-8")
    values = {"seeds": list(seeds), "sets": [asdict(row) | {"holds": row.holds} for row in rows]}
    (run / "summary.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    print(text, end="")
    below = [row.set for row in rows if not row.holds]
    if below:
        print(f"below the stated floor: {', '.join(below)}", file=sys.stderr)
    return int(bool(below))


if __name__ == "__main__":
    raise SystemExit(main(*map(Path, sys.argv[1:])))
