"""The shards of a fine-tuning: a table of labelled files, divided by patient so that every class is on every side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.shots import Division, divide
from medclip.adaptation.data.table import AdaptTable, LabelledUnit
from medclip.errors import MedclipError, Reason
from medclip.files.output import refuse_other, write_file
from medclip.files.tables.read_table import read_table
from medclip.progress import Progress
from medclip.settings import Settings
from medclip.shards.folder import Stored
from medclip.shards.writing.build import Form, build_shards
from medclip.text.vocabulary.find_task import to_yaml
from medclip.training.result import LABELS_NOTE, OWN_SHARDS, OWN_TASK
from medclip.wording import count, list_of

SPLITS = ("train", "val", "test")
_KEPT = ("view", "laterality", "mpp_um", "study", "source", "license")
"""Columns of the table that shards keep beside file, patient, modality and labels: what augmentation looks at, and
where files come from. Texts and persons are not needed."""
_REMEDY = "Name another folder with --out, or remove this one."


@dataclass(frozen=True)
class LabelledSet:
    """A table understood and divided."""

    table: AdaptTable
    side: tuple[str, ...]
    """train, val or test for each of the table's units."""
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> ClassText:
        """The classes."""
        return self.table.text

    def digest(self) -> str:
        """Hash of what the shards are made of: files, patients (hashed), sides and labels; not where they lie."""
        rows = [(u.file, u.patient, str(u.modality), u.target) for u in self.table.units]
        values = [self.text.task.name, self.text.names, sorted(zip(rows, self.side, strict=True), key=repr)]
        return hashlib.sha256(json.dumps(values, default=list).encode()).hexdigest()[:16]


def divided(table: AdaptTable, label: Sequence[str], *, seed: int, test_share: float, val_share: float) -> LabelledSet:
    """Divide patients into three sides, class by class; the table's own `split` stands.

    Args:
        table: The labelled units.
        label: Columns of the labels, for errors.
        seed: Seed of the division; another one gives another.
        test_share: Share of patients to test on, where the table names none.
        val_share: Share of patients to choose weights with, where the table names none; they are never test patients.

    Raises:
        MedclipError: WRONG_USE where a class lacks patients on a side, naming it and its column; PATIENT_OVERLAP.
    """
    if not (0 < test_share < 1 and val_share > 0 and test_share + val_share < 1):
        raise MedclipError(
            Reason.WRONG_USE,
            f"the shares of test ({test_share:g}) and validation ({val_share:g}) are no parts of one whole.",
            hint="Give both more than 0, and leave something to learn from.",
        )
    units = table.units
    division = divide(units, seed=seed, test_share=test_share)
    if not division.val:
        rest = [replace(units[i], split=None) for i in division.train]
        again = divide(rest, seed=seed + 1, test_share=val_share / (1 - test_share))
        division = Division(
            tuple(division.train[i] for i in again.train), tuple(division.train[i] for i in again.test), division.test
        )
    side = dict.fromkeys(division.train, "train") | dict.fromkeys(division.val, "val")
    sides = tuple(side.get(i, "test") for i in range(len(units)))
    return LabelledSet(table, sides, tuple(_check_sides(table, sides, label)))


def _check_sides(table: AdaptTable, sides: Sequence[str], label: Sequence[str]) -> Iterator[str]:
    """Refuse sides on which a class cannot be learned or measured; yield what is left out of the mean.

    Of findings that may occur together one without enough patients to choose or to test on is left out there, and
    named; the others go on.
    """
    text, several = table.text, table.text.rules.independent
    for side in SPLITS:
        units = [unit for unit, unit_side in zip(table.units, sides, strict=True) if unit_side == side]
        missing = [(c, answer) for c in range(len(text.names)) for answer in _missing(units, c, several)]
        if not missing:
            continue
        lacking = list(dict.fromkeys(text.names[c] for c, _ in missing))
        if several and side != "train" and len(lacking) < len(text.names):
            purpose = "chosen" if side == "val" else "tested"
            yield f"In the split {side}, no patient is with, or none without, {list_of(lacking)}: not {purpose} by it."
            continue
        c, answer = missing[0]
        column = label[c] if several and len(label) == len(text.names) else label[0]
        patients = {u.patient for u in table.units if _answers(u, c, several) == answer}
        what = f"the class {text.names[c]!r}" if not several else f"{'with' if answer else 'without'} {text.names[c]!r}"
        raise MedclipError(
            Reason.WRONG_USE,
            f"column {column!r}: no patient {'of ' if not several else ''}{what} is in the split {side}; the table has "
            f"{count(len(patients), 'such patient')} in all, and training, validation and test need some each.",
            where=None,
            hint="Add patients, merge classes, leave the class out, or change the column `split`.",
        )


def _answers(unit: LabelledUnit, c: int, several: bool) -> float | None:
    """Return 1 where a unit has class c, 0 where it is known not to have it."""
    if several:
        assert isinstance(unit.target, tuple)
        return unit.target[c]
    return float(unit.target == c)


def _missing(units: Sequence[LabelledUnit], c: int, several: bool) -> list[float]:
    present = {_answers(unit, c, several) for unit in units}
    return [answer for answer in ((1.0, 0.0) if several else (1.0,)) if answer not in present]


def is_built(out: Path) -> bool:
    """Return whether the shards of a run are there, whole."""
    return (out / OWN_SHARDS / "index.json").is_file()


def write_shards(
    labelled: LabelledSet,
    source: Any,
    out: Path,
    *,
    patient: str | None,
    max_side: int,
    volumes: bool,
    signals: bool,
    seed: int,
    key: bytes,
    settings: Settings,
    progress: Progress | None,
) -> None:
    """Build the shards of a labelled set in `out`, or find those that an earlier call built there.

    Args:
        labelled: The set.
        source: The table it was read from.
        out: Folder of the run; gets shards/, task.yaml and finetune.json.
        patient: Column that names the patient.
        max_side: Longest side of stored images in pixels.
        volumes: Whether voxels and frames are stored, for a model of volumes or loops.
        signals: Whether the leads of ECGs are stored, for a model of them.
        seed: Seed that decides the order inside shards.
        key: Identity key.
        settings: Limits and workers.
        progress: Progress bar of the rows.

    Raises:
        MedclipError: OUTPUT_IN_USE where those there are of other labels; as `build_shards`.
    """
    note = {"labels": labelled.digest(), "task": labelled.text.task.name, "max_side": max_side, "seed": seed}
    if (out / LABELS_NOTE).is_file():
        before = json.loads((out / LABELS_NOTE).read_text(encoding="utf-8"))
        refuse_other(out, "fine-tuning", before, note, titles={"labels": "the table of labels"}, remedy=_REMEDY)
    if not is_built(out):
        write_file(out / LABELS_NOTE, json.dumps(note, indent=1) + "\n")
        stores: Stored = "volumes" if volumes else "signals" if signals else "images"
        form = Form(max_side=max_side, seed=seed, key=key, stores=stores, tasks=(labelled.text.task,))
        table = _frame(labelled, source, patient or "patient")
        build_shards(table, out / OWN_SHARDS, form, settings=settings, progress=progress)
    write_file(out / OWN_TASK, to_yaml(labelled.text.task))


def _frame(labelled: LabelledSet, source: Any, patient: str) -> Any:
    """Make the table that shards are built from."""
    import pyarrow as pa

    table, units, text = read_table(source).with_names((*_KEPT, "file", patient)), labelled.table.units, labelled.text
    rows = [unit.number - 1 for unit in units]
    columns: dict[str, list[str]] = {
        "file": [str(unit.path.absolute()) for unit in units],
        "patient": [table.texts(patient)[row] for row in rows],
        "modality": [str(unit.modality) for unit in units],
        "split": list(labelled.side),
    }
    columns |= {name: [table.texts(name)[row] for row in rows] for name in _KEPT if name in table.names}
    name = f"label:{text.task.name}"
    if text.rules.one_answer:
        columns[name] = [text.names[int(u.target)] for u in units]  # type: ignore[arg-type]
    else:
        for c, class_name in enumerate(text.names):
            answers = (_answers(unit, c, True) for unit in units)
            columns[f"{name}:{class_name}"] = ["" if a is None else str(int(a)) for a in answers]
    return pa.table(columns)
