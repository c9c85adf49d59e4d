"""What is compared with what, fixed before the first run: sets, questions, arms, steps, rates, sizes, seeds, metric."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joint_table import read_labels, rows

SPLITS = {"train": 0.65, "val": 0.10, "test": 0.25}
SHARES = (0.1, 1.0)
"""Of the training patients' labels. Validation patients, on whom every arm chooses its epoch, keep all of theirs."""
SEEDS: Mapping[float, tuple[int, ...]] = {0.1: (0, 1, 2), 1.0: (0, 1)}
"""At a tenth the seed draws the patients, too. Of the arms that learn longer the first seed alone."""
SIZE_PX = 112
BATCHES: Mapping[float, int] = {0.1: 16, 1.0: 32}
STEPS: Mapping[float, int] = {0.1: 160, 1.0: 240}
"""Of fine-tuning, for the ViT."""
CNN_COST = 1.15
"""CPU time of a step of the CNN in that of a step of the ViT: 57 and 50 images a second on one core."""
LONGER = 4
"""Times the steps: pretraining on all sets takes about 30 minutes of CPU time, a quarter of it for each of the four
sets; a run of 240 steps takes 2 and a half."""
EPOCHS = {"all": 60, "cxr": 150}
"""Of the two pretrainings: 3,120 and 1,650 steps of 64 images."""
RATES = {"pretrained": 5e-4, "vit": 5e-4, "cnn": 1e-3}
LAYER_DECAY = 0.75
"""Of a pretrained tower: MAE's own. The 0.55 of chest X-rays is for far longer pretraining."""
METRIC = "macro_auroc"
VIT, CNN = "vit_tiny_patch16_224", "resnet10t"
"""Of 5.5 and 4.9 million parameters."""


@dataclass(frozen=True)
class Question:
    """What is asked of one set."""

    set: str
    title: str
    classes: tuple[str, ...]
    class_of: Callable[[Mapping[str, str]], str]
    """Of a row of its labels.csv."""


def _tumour(row: Mapping[str, str]) -> str:
    return row["label"].replace(" ", "_")


def _one_of(row: Mapping[str, str], column: str, value: str, otherwise: str) -> str:
    return column.lower() if row[column] == value else otherwise


QUESTIONS = (
    Question(
        "nih_cxr",
        "X-ray: pneumonia",
        ("absent", "pneumonia"),
        lambda row: _one_of(row, "Pneumonia", "1", "absent"),
    ),
    Question(
        "brain_mri",
        "Brain MRI: tumour",
        ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor"),
        _tumour,
    ),
    Question(
        "cdd_cesm",
        "Contrast mammography: malignant",
        ("not_malignant", "malignant"),
        lambda row: "malignant" if row["pathology"] == "Malignant" else "not_malignant",
    ),
    Question(
        "isic2017", "Dermoscopy: melanoma", ("other", "melanoma"), lambda row: _one_of(row, "melanoma", "1", "other")
    ),
)


@dataclass(frozen=True)
class Arm:
    """One way of starting."""

    name: str
    title: str
    tower: str
    start: str | None
    """Pretraining whose pack it starts from; None: random weights."""
    sets: tuple[str, ...] = tuple(q.set for q in QUESTIONS)
    longer: bool = False
    """Whether it has the time of pretraining, too; at all labels only."""


ARMS = (
    Arm("random", "ViT, from nothing", VIT, None),
    Arm("mae_all", "ViT, MAE on all sets", VIT, "all"),
    Arm("mae_cxr", "ViT, MAE on X-rays", VIT, "cxr", ("nih_cxr",)),
    Arm("cnn", "CNN, from nothing", CNN, None),
    Arm("random_longer", "ViT, from nothing, longer", VIT, None, longer=True),
    Arm("cnn_longer", "CNN, from nothing, longer", CNN, None, longer=True),
)
REFERENCES = ("random", "cnn", "random_longer", "cnn_longer")
"""What a pretrained arm is compared with."""


@dataclass(frozen=True)
class Cell:
    """One run: a tower, a set, a share of the labels, a seed."""

    how: str
    """finetune or probe."""
    arm: Arm
    question: Question
    share: float
    seed: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.how}-{self.question.set}-{self.arm.name}-{round(100 * self.share)}-{self.seed}"

    @property
    def steps(self) -> int:
        """Of fine-tuning."""
        steps = STEPS[self.share] * (LONGER if self.arm.longer else 1)
        return round(steps / (CNN_COST if self.arm.tower == CNN else 1))


def cells() -> Iterator[Cell]:
    """Yield every run, the cheap ones first and the long ones last. A CNN is not probed: its features are no start."""
    for longer in (False, True):
        for how in ("finetune",) if longer else ("probe", "finetune"):
            for share in SHARES[-1:] if longer else SHARES:
                for question in QUESTIONS:
                    for arm in ARMS:
                        suits = how == "finetune" or arm.tower == VIT
                        if arm.longer == longer and question.set in arm.sets and suits:
                            seeds = SEEDS[share][:1] if longer else SEEDS[share]
                            yield from (Cell(how, arm, question, share, seed) for seed in seeds)


@dataclass(frozen=True)
class Labelled:
    """One image of a set with its class."""

    file: str
    patient: str
    modality: str
    adapter: str
    split: str
    label: str


def labelled(question: Question, data: Path) -> list[Labelled]:
    """Join a set's images, as pretraining names and divides them, with the classes of a question."""
    from medclip.shards.writing.splits import split_of

    classes = {f"{question.set}/{r['file']}": question.class_of(r) for r in read_labels(data / question.set)}
    joined = []
    for row in rows(data, (question.set,)):
        split = row["split"] or split_of(row["patient"], SPLITS, 0)
        label = classes[row["file"]]
        joined.append(Labelled(row["file"], row["patient"], row["modality"], row["adapter"], split, label))
    return joined


def draw_patients(table: Sequence[Labelled], share: float, seed: int) -> set[str]:
    """Draw training patients by class, that of a patient's first image; at least two of each."""
    first: dict[str, str] = {}
    for row in table:
        if row.split == "train":
            first.setdefault(row.patient, row.label)
    drawn: set[str] = set()
    for number, label in enumerate(sorted(set(first.values()))):
        patients = sorted(p for p, own in first.items() if own == label)
        order = np.random.default_rng((seed, number)).permutation(len(patients))
        drawn |= {patients[i] for i in order[: max(2, math.ceil(share * len(patients)))]}
    return drawn


def learned_from(table: Sequence[Labelled], share: float, seed: int) -> list[Labelled]:
    """Leave out the training images whose labels are not given; validation and test images stay."""
    drawn = draw_patients(table, share, seed)
    return [row for row in table if row.split != "train" or row.patient in drawn]


def write_table(table: Sequence[Labelled], data: Path, path: Path) -> None:
    """Write what a cell learns from and is tested on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerow(("file", "patient", "modality", "adapter", "split", "answer"))
        writer.writerows((data / r.file, r.patient, r.modality, r.adapter, r.split, r.label) for r in table)


def store(run: Path, cell: Cell, answer: Mapping[str, Any]) -> None:
    """Keep what a cell left; it appears whole."""
    from medclip.files.output import write_file

    write_file(run / "cells" / f"{cell.name}.json", json.dumps(answer) + "\n")


def stored(run: Path, cell: Cell) -> dict[str, Any] | None:
    """Return what a cell left; None where it is not done."""
    path = run / "cells" / f"{cell.name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
