"""A table writer that the tests of this folder share."""

from __future__ import annotations

import csv

KEY = b"k" * 32
NUM_PATIENTS = 30


def write(path, rows, delimiter=","):
    columns = list(dict.fromkeys(k for r in rows for k in r))
    with path.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, columns, restval="", delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path
