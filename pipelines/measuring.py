"""What measurements of pipelines share: stages that are kept, trainings that go on, and figures as text."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import medclip
from medclip.files.output import write_file


def trained(out: Path, recipe: Mapping[str, Any]) -> Path:
    """Train where that was not done, going on with what was stopped; returns the pack."""
    if not (out / "done.json").is_file():
        result = medclip.pretrain(recipe, out=out)
        if result.pack is None:
            raise SystemExit(f"{out.name} was stopped; call this again to go on.")
        write_file(out / "done.json", json.dumps({"steps": result.steps}) + "\n")
    return out / "pack"


def measure(
    run: Path, stages: Mapping[str, Callable[[], dict[str, Any]]], table_of: Callable[[Mapping[str, Any]], str]
) -> None:
    """Run the stages that are missing, keep what each returns, and write RUN/figures.json and RUN/table.md."""
    figures = {}
    for name, stage in stages.items():
        kept = run / f"{name}.json"
        if not kept.is_file():
            write_file(kept, json.dumps(stage(), indent=1) + "\n")
            print(f"{name}: done", flush=True)
        figures[name] = json.loads(kept.read_text(encoding="utf-8"))
    write_file(run / "figures.json", json.dumps(figures, indent=1) + "\n")
    write_file(run / "table.md", table_of(figures))
    print(table_of(figures))


def read_rows(table: Path) -> list[dict[str, str]]:
    """Read a table that a pipeline wrote."""
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(table: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows whose columns may differ; what a row does not have stays empty."""
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)
    return table


def plain(estimate: Any) -> dict[str, float]:
    """Return an estimate or a difference as numbers for JSON."""
    return {name: round(float(getattr(estimate, name)), 4) for name in ("value", "low", "high")}


def in_words(e: Mapping[str, float], digits: int = 3) -> str:
    """Write such numbers with their interval; without one where it is not known."""
    if math.isnan(e["low"]):
        return f"{e['value']:.{digits}f}".replace("-", "−")
    return f"{e['value']:.{digits}f} ({e['low']:.{digits}f} to {e['high']:.{digits}f})".replace("-", "−")
