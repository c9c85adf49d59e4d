"""What the prepare scripts share: reading published tables, plain or gzipped, and writing one label table with images.

A set that is not there is no error: `Absent` says in a sentence what was looked for, and the other sets are run.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

Row = dict[str, str]


class Absent(Exception):
    """A file of the set is not there; the text is for the person who runs the pipeline."""


def find(folder: Path, *names: str) -> Path:
    """Give the first of some files that is there, plain or gzipped, in the folder or one below it."""
    for name in names:
        for pattern in (name, f"{name}.gz", f"*/{name}", f"*/{name}.gz"):
            found = sorted(folder.glob(pattern))
            if found:
                return found[0]
    raise Absent(f"{folder} has no {' or '.join(names)} (nor the same with .gz)")


def read(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Read a CSV row by row; refuse one that lacks a column, since a table of another release would be misread."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as raw:
        reader = csv.DictReader(io.TextIOWrapper(raw, "utf-8-sig", newline=""))
        missing = [c for c in columns if c not in (reader.fieldnames or ())]
        if missing:
            raise SystemExit(f"{path.name}: no column {', '.join(missing)}; is it the published table?")
        yield from reader


def write(rows: Sequence[Mapping[str, str]], path: Path, images: Path | None = None) -> None:
    """Write the label table; link the images that it names into a folder of their own, which is what gets scored.

    Args:
        rows: With `file` relative to `images`.
        path: Of the table; links go to the folder beside it that has its name.
        images: Where the files are; None: scores were made elsewhere and no images are needed.

    Raises:
        Absent: No row, or not one of the images.
    """
    if not rows:
        raise Absent(f"{path.stem}: no row is left")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    patients = len({r["patient"] for r in rows})
    audited = sum(r["split"] == "test" for r in rows)
    print(f"{path.stem}: {len(rows)} images of {patients} patients, {audited} of them to be audited")
    if images is None:
        return
    missing = sum(not _link(images / r["file"], path.with_suffix("") / r["file"]) for r in rows)
    if missing == len(rows):
        raise Absent(f"none of the {missing} images is in {images}")
    if missing:
        print(f"{path.stem}: {missing} images are not in {images}; the audit counts them as rows without a score")


def _link(source: Path, place: Path) -> bool:
    if not source.is_file():
        return False
    if not place.is_symlink():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(source.resolve())
    return True
