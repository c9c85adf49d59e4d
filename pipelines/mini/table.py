"""Stage 1: one table over all sets that the pack learns from.

Usage: python pipelines/mini/table.py SHARED_DATA OUT.csv [--records FOLDER] [--leave-out SOURCE] [--few N]

Each row stands for its modality's adapter with what is known of it. A third of the images (all of the scarce kinds)
stand there once more for the generic rendering, which carries the modality only and teaches the model to tell
modalities apart when a file has no header. Records of PTB-XL stand there as what an image model is shown of an ECG.
Films whose shape tells the finding stand there as squares. A source that is left out stands there for testing alone:
that is how a training is measured on a site that it has not seen (across_sources.py).

**No caption names the source.** Sources of one kind of image that share a task are made alike: age, sex, side and own
words stay only where each of them has them. `caption_check.py` measures what is left.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from zlib import crc32

sys.path.insert(0, str(Path(__file__).parent))

from shared_sets import SETS, SQUARED, Row, known_of, rows_of

from medclip.evaluation.zero_shot.open_set_tables import write_square

COLUMNS = (
    "file",
    "patient",
    "modality",
    "adapter",
    "split",
    "view",
    "view_kind",
    "laterality",
    "age",
    "sex",
    "mpp_um",
    "captions",
    "study",
    "source",
    "license",
    "stratum",
)
TOLD = ("age", "sex", "laterality", "view", "captions")
"""What captions say beside labels, and what not every source knows; a view that is labelled is a label."""
KNOWN_SHARE = 0.5
"""Share of a source's rows that have a thing from which on the source is said to have it."""
FEW = 20
"""Rows below which a source is too small to decide what others may say."""
GENERIC_ONE_IN = 3
"""Share of images that also stand as a generic rendering: telling modalities apart is easy, and steps are dear."""
SCARCE = frozenset(("fundus", "ct"))
"""Modalities with so few images that all of them do."""
SHARES = {"train": 0.65, "val": 0.10, "test": 0.25}
"""As run.sh divides patients."""
GENERIC = ("file", "patient", "modality", "split", "source", "license")


def table_of(data: Path, records: Path | None = None, sets: Sequence[str] = tuple(SETS)) -> list[Row]:
    """Return the whole table.

    Args:
        data: The folder of shared sets.
        records: Where the records that stand in one archive are written, and the films that are cut; without it there
            are no ECGs and none of these films.
        sets: Names of sets of images.
    """
    images = [row for row in rows_of(data, tuple(sets)) if row["modality"]]
    if records is None:
        images = [row for row in images if row["source"] not in SQUARED]
    for row in images:
        file = data / row["file"]
        if records is not None and row["source"] in SQUARED:
            file = write_square(file, records.resolve() / row["source"])
        row["file"] = str(file)
    generic = [
        {name: row.get(name, "") for name in GENERIC} | {"adapter": "generic", "stratum": "generic"}
        for row in images
        if row["modality"] in SCARCE or crc32(row["file"].encode()) % GENERIC_ONE_IN == 0
    ]
    if records is None:
        return [*alike(images), *generic]
    from ecg_records import record_rows

    return [*alike([*images, *record_rows(data, records)]), *generic]


def alike(rows: Iterable[Row]) -> list[Row]:
    """Take out of captions what only some of several sources know: it would tell them apart."""
    rows = [dict(row) for row in rows]
    shared = sharing(rows)
    for kind, sources in shared.items():
        for column in TOLD:
            if not all(share >= KNOWN_SHARE for share in shares_of(rows, kind, sources, column)):
                for row in rows:
                    if kind_of(row) == kind and row["source"] in sources:
                        row[column] = ""
    return rows


def kind_of(row: Mapping[str, str]) -> str:
    """Return what sort of image a row is: its modality, and for mammograms how they were made."""
    return " ".join(filter(None, (row["modality"], row.get("view_kind", ""))))


def sharing(rows: Sequence[Row]) -> dict[str, frozenset[str]]:
    """Return the sources of each kind of image that share a task with another one."""
    of_task: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        for task in {name.split(":")[1] for name in known_of(row)}:
            of_task[kind_of(row), task][row["source"]] += 1
    shared: dict[str, frozenset[str]] = {}
    for (kind, _), counts in of_task.items():
        sources = frozenset(source for source, number in counts.items() if number >= FEW)
        if len(sources) > 1:
            shared[kind] = shared.get(kind, frozenset()) | sources
    return shared


def shares_of(rows: Sequence[Row], kind: str, sources: Iterable[str], column: str) -> list[float]:
    """Return the share of rows that have a column, of each source."""
    own = [[row for row in rows if kind_of(row) == kind and row["source"] == source] for source in sources]
    return [sum(bool(row.get(column)) for row in part) / len(part) for part in own]


def few_of(rows: Sequence[Row], number: int) -> list[Row]:
    """Return some rows of each source and stratum, half of them to train and a quarter to validate and to test with.

    They are those with the lowest hash of the patient: for a run at small size, in which every stage has something.
    """
    from medclip.shards.writing.splits import split_of

    most = {"val": number // 4, "test": number // 4, "train": number - 2 * (number // 4)}
    kept: Counter[tuple[str, str, str]] = Counter()
    chosen = []
    for row in sorted(rows, key=lambda row: crc32(row["patient"].encode())):
        side = row.get("split") or split_of(row["patient"], SHARES, 0)
        cell = row["source"], row.get("stratum", ""), side
        if kept[cell] < most[side]:
            kept[cell] += 1
            chosen.append(row)
    return chosen


def write_table(rows: Sequence[Row], out: Path) -> None:
    """Write the table; what a row does not have stays empty."""
    columns = dict.fromkeys((*COLUMNS, *(name for row in rows for name in row)))
    with out.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(columns), restval="")
        writer.writeheader()
        writer.writerows(rows)


def main(arguments: list[str]) -> None:
    """Write the table, and print what stands in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--records", type=Path, help="folder for records that stand in one archive")
    parser.add_argument("--leave-out", action="append", default=[], help="source that is tested with alone")
    parser.add_argument("--known-to", help="pack whose sources alone are written: those that it can teach")
    parser.add_argument("--few", type=int, help="so many rows of each source and stratum")
    args = parser.parse_args(arguments)
    rows = table_of(args.data.resolve(), args.records)
    rows = [row | {"split": "test"} if row["source"] in args.leave_out else row for row in rows]
    if args.known_to:
        from medclip.models.packs.pack import find_pack, pack_card

        known = {source.name for source in pack_card(find_pack(args.known_to)).data}
        rows = [row for row in rows if row["source"] in known]
    if args.few:
        rows = few_of(rows, args.few)
    write_table(rows, args.out)
    for source, number in sorted(Counter(row["source"] for row in rows).items()):
        patients = len({row["patient"] for row in rows if row["source"] == source})
        print(f"{source:16} {number:5} rows, {patients:4} patients or what stands for them")
    print(f"{len(rows)} rows of {len({row['file'] for row in rows})} files written to {args.out}")


if __name__ == "__main__":
    main(sys.argv[1:])
