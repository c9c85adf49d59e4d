"""Classify printed ECG sheets with ViT, BEiT and Swin, and ask the same of the borders of the sheets alone.

Usage: python pipelines/ecg/sheets.py RUN [--data ../shared/data] [--towers vit beit swin] [--inputs grid border]
           [--starts nothing rendered given] [--folds 3] [--epochs 10] [--size 112] [--full] [--pack TOWER=PACK ...]
           [--baselines-only] [--smoke]

The published study (ViT-B, BEiT-B and Swin-Tiny on this set) divided files at random, though half of the files are
copies of others and many sheets stand in more than one class; its models saw the printed name, number and heart rate as
well. Here each sheet stands once, and all sheets of a printed number are in one fold: each is answered once, by models
that saw none of its number. Every tower is trained by `medclip.finetune`, on what lies inside of the frame of the grid
(`grid`), and as a control on the sheet with that painted over (`border`). Where borders alone tell the classes apart, a
figure of whole sheets shows nothing of the heart. Beside them stand logistic regressions (sheet_baselines.py).

There are no weights of these towers here: small ones begin with random weights (`nothing`), or with what they learned
of rendered sheets (`rendered`; sheet_start.py). Where such weights lie, --pack names packs to begin with (`given`), and
--full takes the study's sizes and rates. Kill it anywhere and call it again: what is finished is kept. It writes
RUN/figures.json and RUN/table.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import sheet_towers
from scipy.special import log_softmax
from sheet_baselines import BASELINES, encode, fit
from sheet_figures import figures_of, table_of
from sheet_set import CLASSES, INPUTS, SIDE_PX, divided, read_set, read_sheet, shares_of, shown, write_images
from sheet_start import learn_findings, write_sheets

import medclip
from medclip.adaptation.pack.pack_head import read_pack_heads
from medclip.files.output import write_file
from medclip.models.packs.pack import load_model
from medclip.shards.reading.samples import ShardReader
from medclip.training.result import OWN_SHARDS

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import in_words, write_rows  # pyright: ignore[reportMissingImports]

STARTS = ("nothing", "rendered", "given")
Sheets = Sequence[Mapping[str, str]]
Answers = dict[str, list[float]]
"""By file the log probability of each class, as if all were equally frequent."""


def recipe(epochs: int, size_px: int, *, full: bool, pretrained: bool) -> dict[str, object]:
    """Return what differs from the recipe of fine-tuning: no change of what a sheet means, and the study's values."""
    return {
        "model.size_px": size_px,
        "model.drop_path": 0.1,
        "augment.rand_augment": None,
        "augment.flip": 0,
        "augment.stretch": 1,
        "augment.crop_scale": [0.9, 1.0],
        "augment.rotate_deg": 0,
        "augment.brightness": 0,
        "augment.contrast": 0,  # paper stays mid grey
        "train.epochs": epochs,
        "train.batch_size": 16 if full else 8,
        "train.lr": 5e-5 if full else 5e-4 if pretrained else 1e-3,
        "train.layer_decay": 0.75 if pretrained else 1.0,
        "train.threads": 1,
        "train.export": "last",
        "objective.supervised.smoothing": 0.1,
    }


def start_of(tower: str, start: str, options: argparse.Namespace) -> Path | str:
    """Return what a tower begins with: its name, a pack that learned rendered sheets, or one that was given."""
    name = (sheet_towers.FULL if options.full else sheet_towers.SMALL)[tower]
    if start == "nothing":
        return name
    if start == "given":
        return Path(given_packs(options.pack)[tower])
    out = options.run / "start" / tower
    if not (out / "figures.csv").is_file():
        rendered = write_sheets(options.run / "rendered", options.rendered, SIDE_PX, options.data / "ptbxl")
        result = learn_findings(out, name, rendered, options.rendered_epochs, options.size)
        write_rows(out / "figures.csv", [dict(row) for row in result.test])
    return out / "pack"


def answer_tower(
    out: Path, start: Path | str, sheets: Sheets, kind: str, fold: int, options: argparse.Namespace
) -> Answers:
    """Fine-tune on a fold, answer for its test sheets, and remove the run."""
    sides = divided(sheets, fold)
    rows = [
        {"file": row["image"], "group": row["group"], "label": row["label"], "modality": "ecg", "split": side}
        for row, side in zip(sheets, sides, strict=True)
    ]
    result = medclip.finetune(
        write_rows(out / "labels.csv", rows),
        "label",
        model=start,
        out=out / "run",
        images=options.run / "sheets" / kind,
        patient="group",
        seed=fold,
        name=f"ecg-sheets-{kind}",
        workers=1,
        overrides=recipe(options.epochs, options.size, full=options.full, pretrained=isinstance(start, Path)),
    )
    if result.pack is None:
        raise SystemExit(f"{out.name} was stopped; call this again to go on.")
    tested = [row for row, side in zip(sheets, sides, strict=True) if side == "test"]
    images = [options.run / "sheets" / kind / row["image"] for row in tested]
    logits_NC = answer_head(result.pack, out / "run" / OWN_SHARDS, images)
    even_NC = log_softmax(logits_NC - np.log(shares_of(sheets, sides)), axis=1)
    shutil.rmtree(out)
    return {row["file"]: even_C.tolist() for row, even_C in zip(tested, even_NC, strict=True)}


def answer_head(pack: Path, shards: Path, images: Sequence[Path]) -> np.ndarray:
    """Answer for images of the test split with the pack's own head: float64 [N, C], columns as CLASSES."""
    model = load_model(pack)
    (own,) = read_pack_heads(pack, model.card).values()
    with ShardReader(shards, "test") as reader:
        samples = [reader[i] for i in range(len(reader))]
    vectors = model.encode_image(np.stack([model.preprocess.fit(sample.image) for sample in samples]))
    logits_NC = np.asarray(own.head.logits(vectors, model), np.float64)
    places = {str(sample.meta["sha256"]): n for n, sample in enumerate(samples)}
    rows = [places[hashlib.sha256(image.read_bytes()).hexdigest()] for image in images]
    return logits_NC[rows][:, [own.text.names.index(name) for name in CLASSES]]


def given_packs(pairs: Sequence[str]) -> dict[str, str]:
    """Read TOWER=PACK; refused where it is anything else."""
    packs = {tower: pack for tower, _, pack in (pair.partition("=") for pair in pairs)}
    unknown = [tower for tower, pack in packs.items() if tower not in sheet_towers.SMALL or not pack]
    if unknown:
        raise SystemExit(f"--pack {unknown[0]}: write TOWER=PACK, with one of {', '.join(sheet_towers.SMALL)}.")
    return packs


def ways_of(options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Return tower, start and input of each way."""
    given = given_packs(options.pack)
    starts = [start for start in STARTS if start in (options.starts or ["given" if given else "nothing"])]
    every = [(tower, start, kind) for start in starts for kind in options.inputs for tower in options.towers]
    return [(tower, start, kind) for tower, start, kind in every if start != "given" or tower in given]


class Measurement:
    """The cells of a run, of which each is one way's answers for one fold, and the table of those that are there."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.sheets = read_set(options.data / "ecg_sheet", options.folds)
        self.answers: dict[str, list[Answers]] = {}

    def measure(self, way: str, answer: Callable[[int], Answers]) -> None:
        """Compute the cells of a way that are missing, and write figures and table anew."""
        run, stem = self.options.run, way.replace(", ", "-").replace(" ", "_")
        cells = [run / "cells" / f"{stem}-{fold}.json" for fold in range(self.options.folds)]
        for fold, cell in enumerate(cells):
            if not cell.is_file():
                write_file(cell, json.dumps(answer(fold)) + "\n")
        self.answers[way] = [json.loads(cell.read_text(encoding="utf-8")) for cell in cells]
        figures = {
            "sheets": len(self.sheets),
            "groups": len({row["group"] for row in self.sheets}),
            "folds": self.options.folds,
            "ways": figures_of(self.answers, self.sheets),
        }
        write_file(run / "figures.json", json.dumps(figures, indent=1) + "\n")
        write_file(run / "table.md", table_of(figures))
        print(f"{way}: macro AUC {in_words(figures['ways'][way]['macro_auroc'])}", flush=True)

    def measure_baselines(self) -> None:
        """Measure the logistic regressions."""
        labels = np.array([CLASSES.index(row["label"]) for row in self.sheets])
        for name, kinds in BASELINES.items():
            for kind in kinds:
                images = [shown(read_sheet(row["path"]), kind) for row in self.sheets]
                kept = self.options.run / "features" / f"{name.replace(' ', '_')}-{kind}.npy"
                features = encode(name, images, kind, kept)

                def answer(fold: int, features: np.ndarray = features) -> Answers:
                    sides = divided(self.sheets, fold)
                    tested = [row["file"] for row, side in zip(self.sheets, sides, strict=True) if side == "test"]
                    return dict(zip(tested, fit(features, labels, sides).tolist(), strict=True))

                self.measure(f"{name}, {kind}", answer)

    def measure_towers(self) -> None:
        """Measure the towers."""
        write_images(self.sheets, self.options.run / "sheets")
        for tower, start, kind in ways_of(self.options):
            begun = start_of(tower, start, self.options)
            folds = self.options.run / "folds" / f"{tower}-{start}-{kind}"

            def answer(fold: int, begun: Path | str = begun, kind: str = kind, folds: Path = folds) -> Answers:
                return answer_tower(folds / str(fold), begun, self.sheets, kind, fold, self.options)

            self.measure(f"{tower} from {start}, {kind}", answer)


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare, train and measure what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--towers", nargs="+", choices=tuple(sheet_towers.SMALL), default=list(sheet_towers.SMALL))
    parser.add_argument("--inputs", nargs="+", choices=INPUTS, default=list(INPUTS))
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=None)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--size", type=int, default=None)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--pack", nargs="+", default=[], metavar="TOWER=PACK")
    parser.add_argument("--rendered", type=int, default=700, help="simulated records that are drawn")
    parser.add_argument("--rendered-epochs", type=int, default=10)
    parser.add_argument("--baselines-only", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args(argv)
    options.run, options.data = options.run.resolve(), options.data.resolve()
    options.size = options.size or (224 if options.full else 112)
    if options.smoke:
        options.epochs, options.rendered_epochs, options.rendered, options.folds = 1, 1, 48, 2
        options.towers = options.towers[:1]
    measurement = Measurement(options)
    measurement.measure_baselines()
    if not options.baselines_only:
        measurement.measure_towers()
    print((options.run / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
