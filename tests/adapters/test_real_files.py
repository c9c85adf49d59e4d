"""Real files that show one thing each: a twin in the other polarity, the sides of an exam, a rare codec."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from medclip.adapters.base import single
from medclip.adapters.registry import read_unit
from medclip.dicom.pixels.render import read_dicom
from medclip.files.recognise.inspect import inspect_file
from medclip.sample import Modality, Sample
from medclip.settings import Settings

pytestmark = pytest.mark.shared
SETTINGS = Settings()


def _read(path: Path, modality: Modality | None) -> Sample:
    return read_unit(single(path, inspect_file(path, SETTINGS)), modality, SETTINGS)


@pytest.fixture(scope="module")
def root(shared: Path) -> Path:
    return shared / "data/field_dev"


def test_the_monochrome1_twin_is_inverted(root: Path) -> None:
    folder = root / "dicom-cxr/rsna-mono-pair"
    twin, plain = (_read(path, Modality.XRAY).views[0].pixels for path in sorted(folder.iterdir(), reverse=True))
    assert np.abs(twin.astype(int) + plain - 255).max() <= 1  # each is rounded to 8 bits on its own


def test_sides_and_views_of_a_mammography_exam_are_found(shared: Path) -> None:
    folder = shared / "data/mammo_4view"
    with (folder / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        sample = _read(folder / row["file"], Modality.MAMMOGRAPHY)
        (view,) = sample.views
        if row["file"].endswith(".dcm"):
            assert (view.laterality, view.position) == (row["laterality"], row["view"])
        half = view.pixels.shape[1] // 2
        assert view.pixels[:, :half].mean() > view.pixels[:, half:].mean(), row["file"]
        assert ("flip" in [step.name for step in sample.provenance.steps]) == (row["laterality"] == "R")


def test_twelve_bit_jpeg_agrees_with_the_uncompressed_original(root: Path) -> None:
    pytest.importorskip("imagecodecs")
    folder = root / "dicom-ct/cornerstone-ts"
    (lossy,) = folder.glob("*JPEGProcess2_4*")
    (plain,) = folder.glob("*LittleEndianExplicit*")
    difference = read_dicom(lossy, SETTINGS).pixels - read_dicom(plain, SETTINGS).pixels
    assert np.abs(difference).mean() < 0.02
