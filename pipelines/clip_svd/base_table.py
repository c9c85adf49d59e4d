"""Stage 1 on the shared sets: the table of medclip-mini without a single label that a task asks for.

Usage: python pipelines/clip_svd/base_table.py TABLE.csv OUT.csv

medclip-mini learned the very labels that the few-shot tasks ask for, so its zero-shot figures are those of a supervised
model. The base of the measurements is trained on the same patients' images with captions that know modality, view, age
and sex only. Rows, order and patients stay, so that the split by patient is medclip-mini's.
"""

from __future__ import annotations

import csv
import sys

KEPT = ("file", "patient", "modality", "adapter", "view", "laterality", "age", "sex", "source", "license")


def main(table: str, out: str) -> None:
    with open(table, newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    columns = [c for c in KEPT if c in rows[0]]
    with open(out, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} rows, {len(columns)} columns, no label")


if __name__ == "__main__":
    main(*sys.argv[1:])
