"""A start for towers of ECG sheets, made here: records drawn as sheets like those of the set, with their statements.

Simulated hearts (heart.py) and the shared part of PTB-XL, whose statements are known, are drawn with medclip's renderer
in the set's own layout (3x4+1, black on grey lines), cut to the grid and made small like its scans. A tower learns the
findings of these sheets by `medclip.finetune`; no sheet of the set is seen, so one start serves all folds.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from heart import Heart
from heart_signal import simulate_leads
from numpy.typing import NDArray
from PIL import Image
from sheet_set import drawn
from simulate import hearts

import medclip
from medclip.files.output import write_file
from medclip.files.tables.ecg.ptbxl import read
from medclip.imaging.ecg.formats.wfdb import read_wfdb
from medclip.imaging.ecg.sheet.draw_sheet import SheetOptions, render
from medclip.imaging.ecg.twelve_leads import canonical
from medclip.sample import Signal
from medclip.settings import Settings
from medclip.text.ecg_statements import labels_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import read_rows, write_rows  # pyright: ignore[reportMissingImports]

FINDINGS: Mapping[str, tuple[str, ...]] = {
    "ecg_superclass": ("norm", "mi", "sttc", "cd", "hyp"),
    "ecg_rhythm": ("afib", "aflt", "stach", "sbrad", "pace"),
    "ecg_form": ("pvc", "pac", "qwave", "ste", "std", "invt"),
}
"""What is learned of rendered sheets: findings that a classifier of the four classes may want to tell apart."""
SEED = 23
"""Of the simulated hearts."""
_FEWEST = 5
"""A finding that fewer sheets have is not learned."""
_SAMPLING_HZ = 250.0
_DPI = 100
_CROP_MM = (9.0, 22.0, 276.0, 178.0)
"""Left, top, right and bottom of the part of our page that the frame of the set's sheets encloses (1.94 px/mm)."""


def draw_sheet(signal: Signal, side_px: int) -> NDArray[np.uint8]:
    """Draw a record like the images of the set (`sheet_set.drawn`); uint8 [side_px, side_px]."""
    page, _ = render(signal, SheetOptions(dpi=_DPI, grid="grey"))
    left, top, right, bottom = (round(mm * _DPI / 25.4) for mm in _CROP_MM)
    return drawn(np.asarray(Image.fromarray(page).convert("L"))[top:bottom, left:right], side_px)


@dataclass(frozen=True)
class Record:
    """One record to draw."""

    name: str
    patient: str
    labels: Mapping[str, Mapping[str, int]]
    """By task and class."""
    read: Callable[[], Signal]


def records(num: int, ptbxl: Path | None) -> Iterator[Record]:
    """Yield `num` simulated records, then those of PTB-XL, where they are."""
    for heart in hearts(num, 1, SEED):
        labels = labels_of(heart.statements)
        yield Record(f"s{heart.patient:05}", f"simulated:{heart.patient}", labels, partial(_simulated, heart))
    if ptbxl is None or not (ptbxl / "labels.csv").is_file():
        return
    for row in read(read_rows(ptbxl / "labels.csv")).rows:
        yield Record(Path(row.file).stem, f"ptbxl:{row.patient}", row.labels, partial(_read, ptbxl / row.file))


def _simulated(heart: Heart) -> Signal:
    leads = simulate_leads(heart, SEED, sampling_hz=_SAMPLING_HZ)
    return Signal(leads, np.ones(len(leads), bool), _SAMPLING_HZ)


def _read(file: Path) -> Signal:
    return canonical(read_wfdb(file, Settings()))


def write_sheets(out: Path, num: int, side_px: int, ptbxl: Path | None) -> Path:
    """Draw the sheets that are missing; returns their table, with a column of 0 and 1 for each finding."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for record in records(num, ptbxl):
        file = out / f"{record.name}.png"
        if not file.is_file():
            buffer = io.BytesIO()
            Image.fromarray(draw_sheet(record.read(), side_px)).save(buffer, "PNG")
            write_file(file, buffer.getvalue())
        stated = {one: record.labels.get(task, {}).get(one, "") for task, group in FINDINGS.items() for one in group}
        rows.append({"file": file.name, "patient": record.patient, "modality": "ecg"} | stated)
    return write_rows(out / "labels.csv", rows)


def learn_findings(out: Path, tower: str, table: Path, epochs: int, size_px: int) -> medclip.FinetuneResult:
    """Fine-tune a tower of random weights to the findings of rendered sheets; goes on where it was stopped."""
    rows, every = read_rows(table), [name for group in FINDINGS.values() for name in group]
    names = [name for name in every if sum(row[name] == "1" for row in rows) >= _FEWEST]
    changes = {
        "model.size_px": size_px,
        "model.drop_path": 0.1,
        "augment.rand_augment": None,
        "augment.flip": 0,
        "augment.stretch": 1,
        "augment.crop_scale": [0.85, 1.0],
        "augment.rotate_deg": 0,
        "augment.brightness": 0,
        "augment.contrast": 0,
        "train.epochs": epochs,
        "train.batch_size": 16,
        "train.lr": 1e-3,
        "train.threads": 1,
        "train.export": "last",
    }
    return medclip.finetune(
        table,
        names,
        model=tower,
        out=out,
        patient="patient",
        test_share=0.1,
        val_share=0.05,
        seed=SEED,
        overrides=changes,
        name="ecg-sheets-rendered",
        workers=1,
    )
