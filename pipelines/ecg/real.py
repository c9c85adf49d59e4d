"""What pretraining brings on the shared part of PTB-XL, patients held out, at 10 % and 100 % of the labels.

Usage: python pipelines/ecg/real.py SHARED_DATA RUN            what is missing, then the table
       python pipelines/ecg/real.py SHARED_DATA RUN --tiny     a few steps of everything: does it run?

Kill it anywhere and call it again. It writes RUN/figures.json and RUN/table.md; about 45 minutes of one core. All
choices stand in measured_plan.py.

ptbxl and ptbxl_z are one set: a patient is in the same fold in both. The folds are divided three times, so that every
patient is tested once, by models that did not see them. In each division:

- **scratch**: superclasses and rhythm, fine-tuned from random weights;
- **masked**: from a tower that guessed hidden parts of all training records;
- **contrastive**: from that tower after it read the reports of the training records that have one;
- **lens**: in front of the frozen tower of a model that knows other images and words, trained on the same reports; a
  logistic regression answers on its vectors, as (beside) on those of the masked and the contrastive tower;
- **words**: the contrastive model and the lens asked in words.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measured_plan as plan
import numpy as np
import torch
from few_labels import FewLabels
from numpy.typing import NDArray
from ptbxl import write_table
from records import Records, encode, macro_area, probe
from scipy.stats import rankdata

from medclip.shards.writing.build import Form, build_shards
from medclip.statistics.resampling.resampled import Resampled, difference, interval_of
from medclip.text.vocabulary.load import load_task

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import in_words, measure, plain, read_rows, trained, write_rows  # pyright: ignore[reportMissingImports]

sys.path.insert(0, str(Path(__file__).parents[1] / "mini"))
import prepare as mini

KEY = b"medclip shared ECGs".ljust(32)
FINE_TUNED = ("scratch", "masked", "contrastive")
PROBED = ("masked", "contrastive", "lens")
SUPERCLASS, RHYTHM = plan.REAL_TASKS
TINY_IMAGES = 24


@dataclass(frozen=True)
class Place:
    """Where everything lies."""

    data: Path
    run: Path
    tiny: bool = False

    @property
    def divisions(self) -> range:
        """Numbers of the divisions."""
        return range(1 if self.tiny else len(plan.DIVISIONS))

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the labels."""
        return plan.REAL_SHARES[:1] if self.tiny else plan.REAL_SHARES

    def draws(self, share: float) -> tuple[int, ...]:
        """Of labelled patients."""
        return plan.REAL_DRAWS[share][:1] if self.tiny else plan.REAL_DRAWS[share]

    def pack(self, kind: str, division: int) -> Path:
        """Of a pretraining."""
        return self.run / f"{kind}-{division}" / "pack"

    def shards(self, division: int) -> Path:
        """All records, with labels and without words."""
        return self.run / f"records-{division}"

    def few_labels(self, division: int) -> FewLabels:
        """Return how towers are fine-tuned in a division."""
        rows = [row for row in _without_words(divided(_rows(self), division)) if row["split"] == "train"]
        from_pack = {kind: {"signal": {}, "image_weights": str(self.pack(kind, division))} for kind in FINE_TUNED[1:]}
        return FewLabels(
            run=self.run / f"labels-{division}",
            rows=rows,
            images=self.run,
            shards=self.shards(division),
            key=KEY,
            tasks=plan.REAL_TASKS,
            starts={"scratch": plan.REAL, **from_pack},
            recipe={"augment": plan.FEW_AUGMENT},
            steps=dict.fromkeys(plan.REAL_SHARES, plan.TINY_STEPS) if self.tiny else plan.REAL_STEPS,
            batch=plan.REAL_FEW_BATCH,
            rates=plan.REAL_RATES[:1] if self.tiny else plan.REAL_RATES,
        )


def divided(rows: Sequence[Mapping[str, str]], division: int) -> list[dict[str, str]]:
    """Name the split of each row by its fold of PTB-XL."""
    test, val = plan.DIVISIONS[division]
    split_of = dict.fromkeys(test, "test") | {val: "val"}
    return [{**row, "split": split_of.get(int(row["fold"]), "train")} for row in rows]


def _rows(place: Place) -> list[dict[str, str]]:
    """Read the table of both parts, with the labels of the tasks that are measured."""
    table = place.run / "table.csv"
    rows = read_rows(table if table.is_file() else write_table(place.data, place.run))
    if place.tiny:
        rows = rows[::8]
    prefixes = tuple(f"label:{task}:" for task in plan.REAL_TASKS)
    return [{k: v for k, v in row.items() if not k.startswith("label:") or k.startswith(prefixes)} for row in rows]


def _without_words(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k not in ("report", "scp_codes", "language")} for row in rows]


def _build(place: Place, name: str, rows: Sequence[Mapping[str, str]], images: Path | None = None, **form: Any) -> Path:
    shards = place.run / name
    if not (shards / "index.json").is_file():
        build_shards(write_rows(place.run / f"{name}.csv", rows), shards, Form(key=KEY, **form), images=images)
    return shards


def prepare_trunk(place: Place) -> Path:
    """Pretrain the tower that stands behind the lens: hidden parts of images, then their words."""
    rows = [*mini.nih(place.data), *mini.fundus(place.data)]
    rows = [{**row, "split": "train"} for row in (rows[:TINY_IMAGES] if place.tiny else rows)]
    shards = _build(place, "images", rows, images=place.data, max_side=128)
    limits = {"data": {"shards": str(shards), "val_split": None, "test_split": None, "workers": 1}, "seed": plan.SEED}
    masked = limits | {
        "name": "ecg-trunk-masked",
        "objective": "masked",
        "model": dict(plan.TRUNK_MODEL),
        "augment": {"flip": 0.0},
        "train": plan.train(plan.TRUNK_MASKED_EPOCHS, 64, plan.TRUNK_LR, place.tiny),
    }
    pack = trained(place.run / "trunk_masked", masked)
    words = limits | {
        "name": "ecg-trunk",
        "text": dict(plan.TEXT),
        "model": {"image_weights": str(pack), **plan.WORDS},
        "train": plan.train(plan.TRUNK_EPOCHS, 64, plan.TRUNK_LR, place.tiny),
    }
    return trained(place.run / "trunk", words)


def prepare(place: Place, division: int, trunk: Path) -> None:
    """Build the shards of a division, and pretrain on its training records; no label is read."""
    rows = divided(_rows(place), division)
    _build(place, f"records-{division}", _without_words(rows), stores="signals")
    own = ("file", "patient", "modality", "source", "license", "split")
    bare = [{name: row[name] for name in own} for row in rows if row["split"] == "train"]
    everything = _build(place, f"unlabelled-{division}", bare, stores="signals")
    told = [
        {name: row[name] for name in own} | {"caption": row["report"]}
        for row in rows
        if row["split"] == "train" and row["report"]
    ]
    reports = _build(place, f"reports-{division}", told, stores="signals")
    masked = plan.reading(str(everything), f"ecg-masked-{division}") | {
        "objective": "masked",
        "model": dict(plan.REAL),
        "train": plan.train(plan.MASKED_EPOCHS, plan.REAL_BATCH, plan.MASKED_LR, place.tiny),
    }
    pack = trained(place.pack("masked", division).parent, masked)
    from_masked = {"signal": {}, "image_weights": str(pack)}
    trained(
        place.pack("contrastive", division).parent,
        plan.contrastive(str(reports), f"ecg-contrastive-{division}", from_masked, tiny=place.tiny, of_real=True),
    )
    lens = plan.reading(str(reports), f"ecg-lens-{division}") | {
        "model": {
            "signal": {"tower": "lens", **plan.REAL_TAKEN},
            "lens": {"trunk": str(trunk), **plan.LENS},
        },
        "augment": dict(plan.AUGMENT),
        "train": plan.train(plan.LENS_EPOCHS, plan.REAL_BATCH, plan.LENS_LR, place.tiny),
    }
    trained(place.pack("lens", division).parent, lens)


@dataclass(frozen=True, eq=False)
class Tested:
    """Answers of one way for the test patients of all divisions, as ranks within each."""

    ranks_RNC: NDArray[np.float64]
    targets_NC: NDArray[np.float32]
    patients: tuple[str, ...]

    def area(self, columns: Sequence[int] | None = None) -> tuple[Resampled | None, int]:
        """Measure the mean over classes."""
        chosen = list(range(self.targets_NC.shape[1])) if columns is None else list(columns)
        return macro_area(self.ranks_RNC[:, :, chosen], self.targets_NC[:, chosen], self.patients, plan.NUM_RESAMPLES)


def tested(task: str, answers: Sequence[Sequence[NDArray[Any]]], test: Sequence[Records]) -> Tested:
    """Collect the answers of all divisions.

    Args:
        task: What is asked.
        answers: Of each division the scores of each draw, [N, C].
        test: The test records of each division, with any model.
    """
    ranks = []
    for of_division in answers:
        answers_RNC = np.stack([np.asarray(a, np.float64) for a in of_division])
        ranks.append(rankdata(answers_RNC, axis=1) / answers_RNC.shape[1])
    patients = tuple(patient for records in test for patient in records.patients)
    return Tested(np.concatenate(ranks, axis=1), np.concatenate([r.targets(task) for r in test]), patients)


def stage_labels(place: Place) -> dict[str, Any]:
    """Fine-tune and probe with each share of the labels."""
    few = [place.few_labels(division) for division in place.divisions]
    held = {
        kind: [
            {split: encode(place.pack(kind, d), place.shards(d), split) for split in ("val", "test")}
            for d in place.divisions
        ]
        for kind in PROBED
    }
    test = [one["test"] for one in held["masked"]]
    shares = {}
    for share in place.shares:
        draws = place.draws(share)
        ways: dict[str, dict[str, Tested]] = {task: {} for task in plan.REAL_TASKS}
        for arm in FINE_TUNED:
            rates = [few[d].rate_of(arm, share, held["masked"][d]["val"]) for d in place.divisions]
            of_arm = [[few[d].answers(arm, share, draw, rates[d]) for draw in draws] for d in place.divisions]
            for task in plan.REAL_TASKS:
                logits = [[answers[f"test:{task}"] for answers in of_division] for of_division in of_arm]
                ways[task][f"{arm}, fine-tuned"] = tested(task, logits, test)
        for kind in PROBED:
            packs = [place.pack(kind, d) for d in place.divisions]
            train = [
                [encode(packs[d], few[d].labelled(share, draw), "train") for draw in draws] for d in place.divisions
            ]
            for task in plan.REAL_TASKS:
                logits = [
                    [probe(one, held[kind][d]["val"], held[kind][d]["test"], task) for one in train[d]]
                    for d in place.divisions
                ]
                ways[task][f"{kind}, probe"] = tested(task, logits, test)
        shares[f"{share:g}"] = {
            "num_patients": [one.num_patients(share) for one in few],
            "draws": len(draws),
            **_measured(ways),
        }
    return {"num_test": sum(len(records.patients) for records in test), "shares": shares}


def _measured(ways: Mapping[str, Mapping[str, Tested]]) -> dict[str, Any]:
    """Measure superclasses (without HYP, and HYP alone) and rhythm, and each way minus fine-tuning from nothing."""
    figures = {}
    for name, task, columns in _ASKED:
        areas, num_classes = {}, 0
        for way, answers in ways[task].items():
            area, num_classes = answers.area(columns)
            if area is not None:
                areas[way] = area
        scratch = areas.get("scratch, fine-tuned")
        figures[name] = {
            "num_classes": num_classes,
            "macro_auroc": {way: plain(interval_of(area)) for way, area in areas.items()},
            "minus_scratch": {}
            if scratch is None
            else {way: plain(difference(scratch, area)) for way, area in areas.items() if area is not scratch},
        }
    return figures


def _columns(*names: str) -> list[int]:
    return [i for i, one in enumerate(load_task(SUPERCLASS).classes) if one.name in names]


_ASKED = (
    ("superclasses", SUPERCLASS, _columns(*plan.REAL_COUNTED)),
    ("hypertrophy", SUPERCLASS, _columns("hyp")),
    ("rhythm", RHYTHM, None),
)


def stage_words(place: Place) -> dict[str, Any]:
    """Ask in words."""
    ways: dict[str, dict[str, Tested]] = {task: {} for task in plan.REAL_TASKS}
    for kind in ("contrastive", "lens"):
        test = [encode(place.pack(kind, d), place.shards(d), "test") for d in place.divisions]
        for task in plan.REAL_TASKS:
            ways[task][f"{kind}, words"] = tested(task, [[records.by_words(task)] for records in test], test)
    return _measured(ways)


def table_of(figures: Mapping[str, Any]) -> str:
    """Write the figures as Markdown."""
    lines = ["| macro AUC | labels | way | value (95 % interval) | minus from nothing |", "|" + "---|" * 5]
    parts = [(f"{float(share) * 100:g} %", one) for share, one in figures["labels"]["shares"].items()]
    for labels, one in [*parts, ("none", figures["words"])]:
        for name, _, _ in _ASKED:
            figure = one[name]
            for way, area in figure["macro_auroc"].items():
                apart = figure["minus_scratch"].get(way)
                lines.append(
                    f"| {name} ({figure['num_classes']}) | {labels} | {way} | {in_words(area, 2)} | "
                    f"{'' if apart is None else in_words(apart, 2)} |"
                )
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    place = Place(args.data.resolve(), args.run.resolve(), args.tiny)
    trunk = prepare_trunk(place)
    for division in place.divisions:
        prepare(place, division, trunk)
    measure(place.run, {"labels": lambda: stage_labels(place), "words": lambda: stage_words(place)}, table_of)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
