"""Stage 1: the parts of the pre-training mix become shard folders.

Usage: python pipelines/unimed/prepare.py check            sizes, their sum, steps in an epoch
       python pipelines/unimed/prepare.py shards DATA OUT  one shard folder for each part
       python pipelines/unimed/prepare.py list OUT         the folders, as a recipe takes them

DATA has one folder for each part, named as in parts.csv. A part is either
  *.tar        WebDataset tars in UniMed's form ({key}.jpg and {key}.txt, which may hold several captions joined by a
               marker): they are indexed where they lie, and not copied;
  table.csv    a table of your own with labels (see docs/how-to/build_shards.md): captions are written from the labels
               and shards are built.
A part that is there already in OUT is kept. Parts that are not in DATA are named, and left out. A part that cannot be
used is named with the reason; the others are made, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
PARTS = FOLDER / "parts.csv"
SUM = 5_282_000
"""Pairs in the full mix."""
BATCH = 2048
SAMPLES_PER_SHARD = 1000
CAPTIONS = 10
"""Captions written for each labelled image."""


@dataclass(frozen=True)
class Part:
    """One line of parts.csv."""

    name: str
    pairs: int
    modality: str
    """Empty where images of several modalities lie together."""
    form: str
    """What upstream gives: "tars"; or "table" for a table of your own."""
    marker: str
    text: str
    licence: str
    access: str


def read_parts(path: Path = PARTS) -> tuple[Part, ...]:
    """Read a list of parts."""
    with path.open(newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    return tuple(
        Part(r["part"], int(r["pairs"]), r["modality"], r["form"], r["marker"], r["text"], r["licence"], r["access"])
        for r in rows
    )


def check(parts: tuple[Part, ...]) -> int:
    """Print the mix and give its size."""
    total = sum(p.pairs for p in parts)
    for p in parts:
        print(f"{p.name:22} {p.pairs:>9,}  {p.modality or 'mixed':10} {p.text}")
        print(f"{'':34}{p.licence}; {p.access}")
    steps = total // BATCH
    print(f"{'sum':22} {total:>9,}  {steps:,} steps of {BATCH:,} in an epoch, {10 * steps:,} in ten")
    return total


def shards(
    data: Path, out: Path, parts: tuple[Part, ...], key_file: Path | None, max_side: int, val: float
) -> tuple[int, int]:
    """Make the shard folders; gives the numbers of parts that are missing and of parts that cannot be used."""
    from medclip.errors import MedclipError

    missing, unusable = 0, 0
    for part in parts:
        folder, target = data / part.name, out / part.name
        try:
            if (target / "index.json").is_file():
                print(f"{part.name}: kept")
            elif sorted(folder.glob("*.tar")):
                index_tars(part, folder, target, key_file)
            elif (folder / "table.csv").is_file():
                build_table(part, folder, target, key_file, max_side, val)
            else:
                missing += 1
                print(f"{part.name}: MISSING; looked for {folder}/*.tar and {folder}/table.csv")
        except MedclipError as e:
            unusable += 1
            print(f"{part.name}: CANNOT BE USED; {e}")
    if missing or unusable:
        print(
            f"{missing} of {len(parts)} parts are missing, {unusable} cannot be used: "
            "the figures of the paper cannot be expected."
        )
    return missing, unusable


def index_tars(part: Part, folder: Path, target: Path, key_file: Path | None) -> None:
    """Index UniMed's tars where they lie."""
    from medclip.files.pseudonyms import load_key
    from medclip.sample import Modality
    from medclip.settings import Settings
    from medclip.shards.reading.foreign import ForeignSet
    from medclip.shards.reading.index_tars import index_shards
    from medclip.wording import count

    key = load_key(Settings(), path=key_file)
    report = index_shards(
        folder,
        ForeignSet(part.name, part.licence, Modality(part.modality) if part.modality else None),
        out=target,
        key=key,
    )
    print(
        f"{part.name}: {count(report.num_samples, 'sample')} indexed, {sum(report.counts_by_reason.values())} left out"
    )


def build_table(part: Part, folder: Path, target: Path, key_file: Path | None, max_side: int, val: float) -> None:
    """Write captions from a table's labels and build shards."""
    from medclip.api.captions import captions
    from medclip.files.pseudonyms import load_key
    from medclip.settings import Settings
    from medclip.shards.writing.build import Form, build_shards
    from medclip.wording import count

    target.parent.mkdir(parents=True, exist_ok=True)
    captioned = target.with_name(f"{part.name}.captions.csv")
    captions(folder / "table.csv", captioned, from_="labels", num_captions=CAPTIONS, overwrite=True)
    report = build_shards(
        captioned,
        target,
        Form(
            max_side=max_side,
            samples_per_shard=SAMPLES_PER_SHARD,
            stored="jpeg",
            key=load_key(Settings(), path=key_file),
        ),
        images=folder,
        splits={"train": 1 - val, "val": val} if val else {"train": 1.0},
    )
    rejected = sum(report.counts_by_reason.values())
    print(f"{part.name}: {count(report.num_samples, 'sample')}, {count(rejected, 'row')} rejected")


def listed(out: Path, parts: tuple[Part, ...]) -> str:
    """Write the shard folders as a YAML list in one line, for `--set data.shards=`."""
    found = [str(out / p.name) for p in parts if (out / p.name / "index.json").is_file()]
    return f"[{', '.join(found)}]"


def main(arguments: list[str]) -> int:
    """Run one of the three uses; the exit code is 1 where the sum is wrong, nothing is there or a part is unusable."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("use", choices=("check", "shards", "list"))
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--parts", type=Path, default=PARTS)
    parser.add_argument("--key-file", type=Path, help="key for patient hashes [your identity key]")
    parser.add_argument("--max-side", type=int, default=256, help="longest side of stored images, for tables")
    parser.add_argument("--val", type=float, default=0.0, help="share of patients kept for validation, for tables")
    args = parser.parse_args(arguments)
    parts = read_parts(args.parts)
    wanted = {"check": 0, "shards": 2, "list": 1}[args.use]
    if len(args.folders) != wanted:
        parser.error(f"{args.use} takes {wanted} folders, not {len(args.folders)}")
    if args.use == "check":
        total = check(parts)
        return int(args.parts == PARTS and total != SUM)
    if args.use == "list":
        print(listed(args.folders[0], parts))
        return 0
    data, out = args.folders
    missing, unusable = shards(data, out, parts, args.key_file, args.max_side, args.val)
    return int(unusable > 0 or missing == len(parts))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
