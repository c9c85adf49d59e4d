"""Slides, volumes and ECG records through the whole of an adaptation, made by code."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import medclip
from examples.make_phantoms import tissue
from medclip.adapters.registry import preprocessing_of
from medclip.errors import MedclipError
from medclip.models.inputs.signal_input import SignalInput
from medclip.models.packs.pack import load_model
from medclip.settings import ReadPolicy
from tests.kits.adapt_tables import make_pack, write_table
from tests.kits.ecg import heart, write_wfdb
from tests.kits.scoring import make_pack as make_signal_pack
from tests.kits.slides import write_pyramid
from tests.kits.volumes import write_nifti

NAMES = ("first", "second")
PATIENTS = 4


def slide(folder: Path, c: int, seed: int) -> Path:
    """A section, darker in the second class."""
    image = tissue(640, 768, seed=seed)
    return write_pyramid(folder / f"{seed}.tiff", image // (1 + c) if c else image)


def volume(folder: Path, c: int, seed: int) -> Path:
    """A box of 40 HU, or of 400 HU, in air."""
    rng = np.random.default_rng(seed)
    voxels = rng.normal(-1000, 5, (24, 24, 12))
    voxels[4:-4, 4:-4, 2:-2] = (40, 400)[c] + rng.normal(0, 5, (16, 16, 8))
    return write_nifti(folder / f"{seed}.nii.gz", voxels.astype(np.int16), np.diag([2.0, 2.0, 3.0, 1.0]))


def record(folder: Path, c: int, seed: int) -> Path:
    """Twelve leads, of half the height in the second class."""
    leads = {name: lead / (1 + c) for name, lead in heart(3000, 250, seed).items()}
    (folder / str(seed)).mkdir()
    return write_wfdb(folder / str(seed), leads, 250)


@pytest.mark.parametrize(("way", "make"), [("pathology:slide", slide), ("ct:volume", volume), ("ecg:signal", record)])
def test_a_few_units_of_every_kind_become_an_adapted_pack(
    way: str, make: Callable[[Path, int, int], Path], tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = []
    for c, name in enumerate(NAMES):
        for p in range(PATIENTS):
            path = make(tmp_path, c, 10 * c + p)
            rows.append(
                {
                    "file": str(path.relative_to(tmp_path)),
                    "patient": f"P{c}{p}",
                    "modality": way.partition(":")[0],
                    "finding": name,
                }
            )
    table = write_table(tmp_path / "table.csv", rows)
    base = make_pack(tmp_path / "base")
    run = medclip.adapt(table, "finding", model=base, method="tip", shots=2, workers=1, out=tmp_path / "pack")
    assert not run.problems
    assert len(run.drawn.train) == 4
    assert run.test.probabilities_NC.shape == (len(run.test.numbers), 2)
    np.testing.assert_allclose(run.test.probabilities_NC.sum(axis=1), 1, atol=1e-5)
    assert way in load_model(tmp_path / "pack").preprocess.adapters


SIGNAL = SignalInput(sampling_hz=50, seconds=4)


def test_a_table_of_ecgs_needs_no_modality_where_the_pack_takes_nothing_else(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for c, name in enumerate(NAMES):
        for p in range(PATIENTS):
            path = record(tmp_path, c, 10 * c + p)
            rows.append({"file": str(path.relative_to(tmp_path)), "patient": f"P{c}{p}", "finding": name})
    table = write_table(tmp_path / "table.csv", rows)
    ways = {"ecg:signal": preprocessing_of("ecg:signal", ReadPolicy(ecg=SIGNAL.options))}
    base = make_signal_pack(tmp_path / "signals", ways, signal=SIGNAL, modalities=["ecg"], tasks={})
    run = medclip.adapt(table, "finding", model=base, method="tip", shots=2, workers=1)
    assert {str(unit.modality) for unit in run.units} == {"ecg"}
    assert not run.problems
    with pytest.raises(MedclipError, match="row 1: nothing says which modality it is"):
        medclip.adapt(table, "finding", model=make_pack(tmp_path / "images"), method="tip", shots=2, workers=1)
    page = (
        medclip.compare(
            table, "finding", model=base, method="zero-shot", shots=2, num_seeds=1, out=tmp_path / "compared"
        ).folder
        / "report.html"
    )
    wrong = re.findall(r'<img src="data:image/(\w+);base64', page.read_text())
    assert wrong
    assert set(wrong) == {"png"}  # sheets of the records that were answered wrongly
