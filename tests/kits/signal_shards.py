"""Shards of ECGs made by code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from medclip.settings import Settings
from medclip.shards.writing.build import Form, build_shards
from tests.kits.ecg import heart, write_wfdb
from tests.kits.leakage import film

CLASSES = ("NORM", "HYP")
CAPTIONS = ("sinus rhythm, normal ecg, no abnormality", "left ventricular hypertrophy, high voltage of all chest leads")


def write_records(
    folder: Path, num: int, *, hz: float = 250.0, seconds: float = 4.0, missing: Sequence[int] = ()
) -> list[str]:
    """Write WFDB records whose voltages are normal or, of every second one, large; returns the names of the headers.

    Args:
        folder: Where.
        num: Records.
        hz: Samples per second.
        seconds: Length.
        missing: Numbers of records without V4 to V6.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for n in range(num):
        leads = {lead: line * (1 + 1.5 * (n % 2)) for lead, line in heart(round(seconds * hz), hz, seed=n).items()}
        if n in missing:
            leads = {lead: line for lead, line in leads.items() if lead not in ("V4", "V5", "V6")}
        names.append(write_wfdb(folder, leads, hz, name=f"r{n:03}").name)
    return names


def signal_shards(
    folder: Path,
    splits: Sequence[str] = ("train",) * 8 + ("val",) * 4,
    *,
    missing: Sequence[int] = (),
    hz: float = 250.0,
) -> Path:
    """Build shards of ECGs with captions and labels, each of a patient of its own; returns the folder of the shards.

    Args:
        folder: Gets `files` and `s`.
        splits: Of the records, in their order.
        missing: Numbers of records without V4 to V6.
        hz: Samples per second of the files.
    """
    files = folder / "files"
    names = write_records(files, len(splits), hz=hz, missing=missing)
    table = pd.DataFrame(
        {
            "file": names,
            "patient": [f"p{n}" for n in range(len(names))],
            "modality": "ecg",
            "split": list(splits),
            "caption": [CAPTIONS[n % 2] for n in range(len(names))],
            "source": "made here",
            "license": "CC0",
        }
    )
    form = Form(key=b"k" * 32, stores="signals", samples_per_shard=4)
    build_shards(table, folder / "s", form, images=files, settings=Settings(workers=1))
    return folder / "s"


def signal_recipe(shards: Path) -> dict[str, Any]:
    """Return four steps in two epochs of MERL's objective: ECGs of 4 s at 100 Hz beside their captions."""
    return {
        "name": "ecgs",
        "seed": 3,
        "objective": "merl",
        "data": {"shards": str(shards), "workers": 2},
        "text": {"vocab_size": 600, "context_length": 24, "captions_per_sample": 1},
        "model": {
            "signal": {"tower": "joint_patch", "size": "test", "sampling_hz": 100, "seconds": 4},
            "embed_dim": 16,
            "text_width": 16,
            "text_heads": 2,
            "text_layers": 1,
        },
        "train": {"epochs": 2, "batch_size": 4, "warmup_steps": 1, "log_every": 1, "threads": 1},
    }


def mixed_table(folder: Path) -> Path:
    """Write a table of two films and three ECG records in turns, each of a patient of its own.

    The last record is the first one, stored again.
    """
    names = write_records(folder, 2)
    (folder / "again.hea").write_text((folder / names[0]).read_text().replace("r000 ", "again ", 1))
    for n in (0, 1):
        Image.fromarray(film(n, 64, 60)).save(folder / f"film{n}.png")
    files = [names[0], "film0.png", names[1], "film1.png", "again.hea"]
    rows = [f"{name},P{n},{'ecg' if name.endswith('hea') else 'xray'},A text of {n}." for n, name in enumerate(files)]
    (folder / "t.csv").write_text("\n".join(["file,patient,modality,caption", *rows]) + "\n")
    return folder / "t.csv"
