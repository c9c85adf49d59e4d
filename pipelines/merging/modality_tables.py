"""Stage 1: the rows of pipelines/mini, one table for each modality, and one that names modalities and nothing else.

Usage: python pipelines/merging/modality_tables.py SHARED_DATA RUN [--most 40]

Who is held out in pipelines/mini is held out here: patients have the same names, and shards are built with its shares
and its key.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "mini"))

import prepare as mini
from measuring import write_rows

Row = dict[str, str]
MODALITIES = ("xray", "fundus", "mri", "mammography")
"""In the order in which they are learned: the set with most images first."""
LEFT_OUT = frozenset({"covid_cxr"})
"""Sources of which nothing is learned or measured: nearly all its films show pneumonia and most COVID-19, which no film
of nih_cxr shows. A score of the source alone would pass for knowing the findings."""
START = "start"
"""The table of generic renderings, whose captions name the modality alone: what all packs begin with."""


def tables(data: Path, most: int | None = None) -> dict[str, list[Row]]:
    """Return the rows of each table.

    Args:
        data: The shared data.
        most: At most so many rows of each modality, spread over it; all where None.
    """
    root = data.resolve()
    rows = [row | {"file": str(root / row["file"])} for row in mini.rows(root) if row["source"] not in LEFT_OUT]
    chosen = {name: [row for row in rows if row["modality"] == name and not row.get("adapter")] for name in MODALITIES}
    chosen[START] = [row for row in rows if row.get("adapter") == "generic" and row["modality"] in MODALITIES]
    return {name: _spread(several, most) for name, several in chosen.items()}


def _spread(rows: list[Row], most: int | None) -> list[Row]:
    if most is None or len(rows) <= most:
        return rows
    return [rows[i * len(rows) // most] for i in range(most)]


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--most", type=int)
    arguments = parser.parse_args()
    for name, rows in tables(arguments.data, arguments.most).items():
        write_rows(arguments.run / f"{name}.csv", rows)
        patients = len({row["patient"] for row in rows})
        sources = dict(Counter(row["source"] for row in rows))
        print(f"{name}: {len(rows)} rows, {patients} names of patients or of alike images, {sources}")


if __name__ == "__main__":
    main()
