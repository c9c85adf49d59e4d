"""Stage 1: one table over every shared image set that weights may be trained on, without labels and without texts.

Usage: python pipelines/mae_all/joint_table.py SHARED_DATA OUT.csv [--sets nih_cxr,covid_cxr] [--modalities xray]

What a set is called, who its patient is, what may be used and who is held out stands once, in
pipelines/mini/shared_sets.py: whom medclip-mini holds out is held out here, too, for `medclip shards build` divides by
the name of the patient alone.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "mini"))

from shared_sets import SETS, read_labels, rows_of  # comparison_plan.py reads labels, too

Row = dict[str, str]
COLUMNS: tuple[str, ...] = (
    "file",
    "patient",
    "modality",
    "adapter",
    "split",
    "view",
    "laterality",
    "age",
    "sex",
    "mpp_um",
    "source",
    "license",
)
"""Labels and free texts are left out: nothing here learns from words, and what is not copied cannot leak."""
PLAIN: dict[str, dict[str, str]] = {
    "ecg_sheet": {"adapter": "generic"},
    "vqa_rad": {"adapter": "generic", "modality": ""},
}
"""Sets that are stored as they are: nothing is gained where neither words nor heads are learned."""
__all__ = ("read_labels",)


def rows(data: Path, sets: tuple[str, ...] = tuple(SETS), modalities: tuple[str, ...] = ()) -> Iterator[Row]:
    """Yield every row of the table; patients whose images ship in examples/ are in the test split.

    Args:
        data: The folder of shared sets.
        sets: Names in `SETS`.
        modalities: Only these; all where empty.
    """
    for name in sets:
        for row in rows_of(data, (name,)):
            if not modalities or row["modality"] in modalities:
                known = row | PLAIN.get(name, {})
                yield {column: known.get(column, "") for column in COLUMNS}


def main(arguments: list[str]) -> None:
    """Write the table; paths in it are absolute so that it can lie anywhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--modalities", default="")
    args = parser.parse_args(arguments)
    wanted = tuple(args.sets.split(","))
    if unknown := sorted(set(wanted) - set(SETS)):
        parser.error(f"no set is called {', '.join(unknown)}; sets are {', '.join(SETS)}")
    root = args.data.resolve()
    table = list(rows(root, wanted, tuple(filter(None, args.modalities.split(",")))))
    with args.out.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, COLUMNS)
        writer.writeheader()
        writer.writerows(row | {"file": str(root / row["file"])} for row in table)
    for source, number in Counter(row["source"] for row in table).items():
        patients = len({row["patient"] for row in table if row["source"] == source})
        print(f"{source:18} {number:>6,} images of {patients:,} patients or groups")
    num_patients = len({row["patient"] for row in table})
    print(f"{len(table):,} images of {num_patients:,} patients or groups written to {args.out}")


if __name__ == "__main__":
    main(sys.argv[1:])
