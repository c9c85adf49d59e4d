"""What pretraining with reports brings on simulated ECGs, with 1 % and 10 % of the labels, and what words alone tell.

Usage: python pipelines/ecg/measure.py RUN            every stage that is missing, then the table
       python pipelines/ecg/measure.py RUN --tiny     a few patients and steps of everything: does it run?

Kill it anywhere and call it again: trainings go on where they stopped, and what is done is kept. It writes
RUN/figures.json and RUN/table.md; about an hour of one core. All choices stand in measured_plan.py.

1. **Labels**: PTB-XL's six levels, fine-tuned from the tower that read the training patients' reports, and from
   nothing, the same steps; and a logistic regression on the vectors of that tower as it is, MERL's way of testing. Mean
   area over the classes of a level, and the paired difference to the beginning from nothing.
2. **Words**: the same levels asked in words, without any label.

Test patients, labelled patients and the rate that is best on validation patients are the same for both beginnings.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measured_plan as plan
import numpy as np
import torch
from few_labels import FewLabels
from numpy.typing import NDArray
from records import Records, encode, macro_area, measured, probe
from simulate import write_cohort

from medclip.shards.writing.build import Form, build_shards
from medclip.statistics.resampling.resampled import difference, interval_of
from medclip.text.vocabulary.load import load_task

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import in_words, measure, plain, read_rows, trained, write_rows  # pyright: ignore[reportMissingImports]

KEY = b"medclip simulated ECGs".ljust(32)
ARMS = ("scratch", "contrastive")


@dataclass(frozen=True)
class Place:
    """Where everything lies."""

    run: Path
    tiny: bool = False

    @property
    def cohort(self) -> Path:
        """Records and tables."""
        return self.run / "cohort"

    @property
    def shards(self) -> Path:
        """Of validation and test records, with labels."""
        return self.run / "shards"

    @property
    def pack(self) -> Path:
        """Of the pretraining."""
        return self.run / "pretrain" / "pack"

    @property
    def draws(self) -> tuple[int, ...]:
        """Of labelled patients."""
        return plan.DRAWS[:2] if self.tiny else plan.DRAWS

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the training patients whose labels are given."""
        return plan.SHARES[:1] if self.tiny else plan.SHARES

    def few_labels(self) -> FewLabels:
        """Return how both arms are fine-tuned."""
        rows = [row for row in read_rows(self.cohort / "table.csv") if row["split"] == "train"]
        return FewLabels(
            run=self.run / "labels",
            rows=[{k: v for k, v in row.items() if not k.startswith("report")} for row in rows],
            images=self.cohort,
            shards=self.shards,
            key=KEY,
            tasks=plan.LEVELS,
            starts={"scratch": plan.SIMULATED, "contrastive": {"signal": {}, "image_weights": str(self.pack)}},
            recipe={"augment": plan.FEW_AUGMENT},
            steps=dict.fromkeys(plan.SHARES, plan.TINY_STEPS) if self.tiny else plan.STEPS,
            batch=plan.FEW_BATCH,
            rates=plan.RATES[:1] if self.tiny else plan.RATES,
        )


def prepare(place: Place) -> None:
    """Write cohort and shards, and pretrain with the reports; the shards of the pretraining hold no label."""
    sizes = plan.TINY_PATIENTS if place.tiny else plan.PATIENTS
    if not (place.shards / "index.json").is_file():
        table = write_cohort(place.cohort, sum(sizes), seed=plan.SEED, sampling_hz=plan.SAMPLING_HZ, sizes=sizes[:2])
        rows = read_rows(table)
        own = ("file", "patient", "modality", "source", "license", "split")
        reports = [
            {name: row[name] for name in own} | {"caption": row["report"]} for row in rows if row["split"] == "train"
        ]
        if not (place.run / "reports" / "index.json").is_file():
            table = write_rows(place.run / "reports.csv", reports)
            build_shards(table, place.run / "reports", Form(key=KEY, stores="signals"), images=place.cohort)
        held_out = [{k: v for k, v in row.items() if not k.startswith("report")} for row in rows]
        held_out = [row for row in held_out if row["split"] != "train"]
        table = write_rows(place.run / "held_out.csv", held_out)
        build_shards(table, place.shards, Form(key=KEY, stores="signals"), images=place.cohort)
    recipe = plan.contrastive(str(place.run / "reports"), "ecg-simulated", plan.SIMULATED, tiny=place.tiny)
    trained(place.run / "pretrain", recipe)


def stage_labels(place: Place) -> dict[str, Any]:
    """Fine-tune from both beginnings, and probe, with each share of the labels."""
    few = place.few_labels()
    records = {split: encode(place.pack, place.shards, split) for split in ("val", "test")}
    shares = {}
    for share in place.shares:
        rates = {arm: few.rate_of(arm, share, records["val"]) for arm in ARMS}
        answers = {arm: [few.answers(arm, share, draw, rates[arm]) for draw in place.draws] for arm in ARMS}
        drawn = [encode(place.pack, few.labelled(share, draw), "train") for draw in place.draws]
        levels = {}
        for task in plan.LEVELS:
            logits = {arm: np.stack([one[f"test:{task}"] for one in own]) for arm, own in answers.items()}
            logits["probe"] = np.stack([probe(one, records["val"], records["test"], task) for one in drawn])
            levels[task] = _level(task, logits, records["test"])
        shares[f"{share:g}"] = {"num_patients": few.num_patients(share), "rates": rates, "levels": levels}
    return {"num_test": len(records["test"].patients), "draws": len(place.draws), "shares": shares}


def _level(task: str, logits: Mapping[str, NDArray[Any]], test: Records) -> dict[str, Any]:
    """Measure the ways of one level, each the mean of its draws; logits are [R, N, C]."""
    areas, num_classes = {}, 0
    for arm, logits_RNC in logits.items():
        area, num_classes = macro_area(logits_RNC, test.targets(task), test.patients, plan.NUM_RESAMPLES)
        if area is not None:
            areas[arm] = area
    if not areas:
        return {"num_classes": 0}
    return {
        "num_classes": num_classes,
        "macro_auroc": {arm: plain(interval_of(area)) for arm, area in areas.items()},
        "of_each_draw": {arm: [round(v, 4) for v in area.runs_SI.ravel().tolist()] for arm, area in areas.items()},
        "minus_scratch": {
            arm: plain(difference(areas["scratch"], areas[arm])) for arm in ("contrastive", "probe") if arm in areas
        },
    }


def stage_words(place: Place) -> dict[str, Any]:
    """Ask all levels in words."""
    records = encode(place.pack, place.shards, "test")
    return {task: measured(records.by_words(task), records, task, plan.NUM_RESAMPLES) for task in plan.LEVELS}


def table_of(figures: Mapping[str, Any]) -> str:
    """Write the figures as Markdown."""
    ways = ("from nothing", "with reports", "minus from nothing", "with reports, as it is", "minus from nothing")
    lines = [f"| macro AUC | classes | labelled patients | {' | '.join(ways)} |", "|" + "---|" * 8]
    for one in figures["labels"]["shares"].values():
        for task, level in one["levels"].items():
            areas = level.get("macro_auroc")
            if areas is None:
                continue
            about = (load_task(task).title, level["num_classes"], one["num_patients"], in_words(areas["scratch"]))
            gains = [f"{in_words(areas[way])} | {in_words(gain)}" for way, gain in level["minus_scratch"].items()]
            lines.append(f"| {' | '.join(map(str, [*about, *gains]))} |")
    lines += [
        f"| {load_task(task).title} | {level['num_classes']} | none: words | | | | {in_words(level['macro_auroc'])} | |"
        for task, level in figures["words"].items()
        if "macro_auroc" in level
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    place = Place(args.run.resolve(), args.tiny)
    prepare(place)
    measure(place.run, {"labels": lambda: stage_labels(place), "words": lambda: stage_words(place)}, table_of)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
