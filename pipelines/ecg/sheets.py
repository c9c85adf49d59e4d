"""Classify printed ECG sheets with ViT, BEiT and Swin, and ask the same of the borders of the sheets alone.

Usage: python pipelines/ecg/sheets.py OUT [--data ../shared/data/ecg_sheet] [--full] [--towers vit beit swin]
           [--inputs grid border] [--epochs 20] [--size 160] [--seed 0] [--smoke]

The published study (ViT-B, BEiT-B and Swin-Tiny on this set) split files at random, though half of the files are copies
of others and many sheets stand in more than one class; its models saw the printed name, number and heart rate as well.
Here each sheet stands once, all sheets of a printed number are on one side of one split, and each tower is trained
twice by `medclip.finetune`: on what lies inside of the frame of the grid (`grid`), and on the sheet with that painted
over (`border`). Where the borders alone tell the classes apart, a figure of whole sheets shows nothing of the heart.

Without --full the towers are small and begin with random weights; with it they have the study's sizes, from the packs
or towers that --start names (vit=PACK beit=PACK swin=PACK), where such weights lie.
Writes OUT/results.csv. Kill it anywhere and run it again: what is finished is kept.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sheet_towers
from PIL import Image

import medclip

INPUTS = ("grid", "border")
DATA = Path("../shared/data/ecg_sheet")
_PAPER = 254
"""Outside of the frame the paper is pure white; inside the grid makes it a little darker."""
_MARGIN_PX = 2


def frame_of(sheet: np.ndarray) -> tuple[slice, slice]:
    """Return rows and columns of the grid's frame: the longest runs in which most pixels are not white."""
    dark = sheet < _PAPER
    rows = _longest(dark[:, 20:-20].mean(1) > 0.5)
    return rows, _longest(dark[rows].mean(0) > 0.5)


def _longest(mask: np.ndarray) -> slice:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        raise SystemExit("no frame of a grid was found on a sheet")
    longest = int(np.argmax(ends - starts))
    return slice(int(starts[longest]), int(ends[longest]))


def prepare(data: Path, out: Path) -> dict[str, Path]:
    """Write both kinds of images and a table of each; return the tables by kind."""
    with (data / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    tables = {}
    for kind in INPUTS:
        folder = out / kind
        folder.mkdir(parents=True, exist_ok=True)
        for row in rows:
            sheet = np.asarray(Image.open(data / row["file"]).convert("L"))
            inside = frame_of(sheet)
            if kind == "grid":
                sheet = sheet[inside][_MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX]
            else:
                sheet = sheet.copy()
                sheet[inside] = 255
            Image.fromarray(sheet).save(folder / f"{Path(row['file']).stem}.png")
        tables[kind] = folder / "labels.csv"
        with tables[kind].open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["file", "patient", "label", "modality"])
            writer.writerows([f"{Path(row['file']).stem}.png", row["group"], row["label"], "ecg"] for row in rows)
    return tables


def recipe(epochs: int, size_px: int, *, full: bool) -> dict[str, object]:
    """Return what differs from the recipe of fine-tuning: no change of what a sheet means, and the study's values."""
    return {
        "model.size_px": size_px, "model.drop_path": 0.1,
        "augment.rand_augment": None, "augment.flip": 0, "augment.stretch": 1, "augment.crop_scale": [0.9, 1.0],
        "augment.rotate_deg": 2, "augment.brightness": 0.1, "augment.contrast": 0.1,
        "train.epochs": epochs, "train.batch_size": 16, "train.lr": 5e-5 if full else 1e-3,
    }  # fmt: skip


def measure(
    out: Path, tables: dict[str, Path], towers: dict[str, str], options: argparse.Namespace
) -> list[dict[str, object]]:
    """Train each tower on each kind of image; the split is the same, since groups and seed are."""
    rows: list[dict[str, object]] = []
    for name, tower in towers.items():
        for kind in options.inputs:
            result = medclip.finetune(
                tower, tables[kind], "label", out=out / "runs" / f"{name}_{kind}", patient="patient", test_share=0.3,
                val_share=0.15, seed=options.seed, overrides=recipe(options.epochs, options.size, full=options.full),
                name=f"ecg-sheets-{name}-{kind}", workers=1,
            )  # fmt: skip
            for figure in result.test:
                rows.append({"tower": name, "input": kind, **{key: figure[key] for key in figure}})
            write(out / "results.csv", rows)
            for row in rows:
                if row["tower"] == name and row["input"] == kind:
                    print({key: row[key] for key in row if key != "task"}, flush=True)
    return rows


def write(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Write the figures so far."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare, train and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--towers", nargs="+", choices=tuple(sheet_towers.SMALL), default=list(sheet_towers.SMALL))
    parser.add_argument("--inputs", nargs="+", choices=INPUTS, default=list(INPUTS))
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--start", nargs="+", default=[], metavar="TOWER=PACK")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--size", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args(argv)
    if options.smoke:
        options.epochs, options.towers = 1, options.towers[:1]
    options.size = options.size or (224 if options.full else 160)
    known = {**(sheet_towers.FULL if options.full else sheet_towers.SMALL)}
    known |= dict(pair.split("=", 1) for pair in options.start)
    tables = prepare(options.data, options.out / "sheets")
    measure(options.out, tables, {name: known[name] for name in options.towers}, options)


if __name__ == "__main__":
    main()
