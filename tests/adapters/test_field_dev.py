"""The real files of every kind: each gets a sample or a reason."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from medclip.adapters.registry import read_sample
from medclip.errors import MedclipError, Reason, Status
from medclip.files.discover import discover
from medclip.files.group import group
from medclip.files.inspect import FileFacts, inspect_file
from medclip.imaging.dicom_pixels import read_dicom
from medclip.sample import FileRef, Modality, Sample
from medclip.settings import Settings

pytestmark = pytest.mark.shared
SETTINGS = Settings()
READ = {"cxr-png", "dicom-cxr", "mammo", "pathology", "ecg-image"}


def _read(path: Path, modality: Modality | None) -> Sample:
    return read_sample(path, inspect_file(path, SETTINGS), modality, SETTINGS)


@pytest.fixture(scope="module")
def field(shared: Path) -> tuple[Path, list[tuple[FileRef, FileFacts]], dict[str, dict[str, str]]]:
    root = shared / "data/field_dev"
    with (root / "manifest.csv").open(newline="") as stream:
        rows = {row["path"]: row for row in csv.DictReader(stream)}
    return root, [(ref, inspect_file(ref.path, SETTINGS)) for ref in discover(root)], rows


def test_every_file_ends_with_a_sample_or_a_reason(field) -> None:
    _, files, rows = field
    found = {}
    studies = group(files, manifest=None, modality=None, key=b"k" * 32)
    modality = {ref.name: study.modality for study in studies for ref in study.files}
    for number, (ref, facts) in enumerate(files):
        if facts.problem is not None or (number % 3 and rows.get(ref.name, {}).get("kind") not in READ):
            continue
        try:
            sample = read_sample(ref.path, facts, modality.get(ref.name), SETTINGS)
        except MedclipError as error:
            found[ref.name] = error.reason
            continue
        assert sample.views[0].pixels.ndim == 3
        found[ref.name] = None
    must = [name for name, row in rows.items() if row["kind"] in READ and row["status"] == "image"]
    assert [name for name in must if found[name] is not None] == []
    assert len(must) == 48


def test_hashes_are_those_of_the_manifest(field) -> None:
    _, files, rows = field
    wrong = [ref.name for ref, facts in files if ref.name in rows and facts.sha256 != rows[ref.name]["sha256"]]
    assert wrong == []


def test_what_holds_no_image_is_never_a_failure(field) -> None:
    _, files, rows = field
    for ref, facts in files:
        if rows.get(ref.name, {}).get("status") in ("no_image", "companion", "signal", "volume"):
            assert facts.problem is not None, ref.name
            assert facts.problem.status is Status.SKIPPED, ref.name


def test_the_monochrome1_twin_is_inverted(field) -> None:
    root, _, _ = field
    folder = root / "dicom-cxr/rsna-mono-pair"
    twin, plain = (_read(path, Modality.XRAY).views[0].pixels for path in sorted(folder.iterdir(), reverse=True))
    assert np.abs(twin.astype(int) + plain - 255).max() <= 1  # each is rounded to 8 bits on its own


def test_a_rendering_agrees_with_an_independent_viewer(field) -> None:
    root, _, _ = field
    folder = root / "dicom-cxr/dwv"
    ours = _read(folder / "gdcm-CR-MONO1-10-chest.dcm", None).views[0].pixels
    theirs = _read(folder / "expected/gdcm-CR-MONO1-10-chest.jpg", Modality.XRAY).views[0].pixels
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).mean() < 3


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


def test_a_nested_or_oversized_header_is_refused_quickly(field) -> None:
    _, files, rows = field
    reasons = {
        facts.problem.reason
        for ref, facts in files
        if facts.problem and rows.get(ref.name, {}).get("kind") == "dicom-nasty"
    }
    assert reasons <= {
        Reason.NO_PIXELS,
        Reason.NOT_SUPPORTED_YET,
        Reason.CORRUPT,
        Reason.EMPTY_FILE,
        Reason.UNKNOWN_FORMAT,
        Reason.NOT_AN_IMAGE,
        Reason.TRUNCATED,
    }


def test_twelve_bit_jpeg_agrees_with_the_uncompressed_original(field) -> None:
    root, _, _ = field
    pytest.importorskip("imagecodecs")
    folder = root / "dicom-ct/cornerstone-ts"
    (lossy,) = folder.glob("*JPEGProcess2_4*")
    (plain,) = folder.glob("*LittleEndianExplicit*")
    difference = read_dicom(lossy, SETTINGS).pixels - read_dicom(plain, SETTINGS).pixels
    assert np.abs(difference).mean() < 0.02
