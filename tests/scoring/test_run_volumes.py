"""Scoring a folder with series and records: what becomes of all files of a unit when one of them is bad."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest

from examples.make_phantoms import ecg_record, slide
from medclip.api.embed import embed
from medclip.api.score import score
from tests.kits.files import write_dicom
from tests.kits.metaimages import metaimage, write_mha, write_mhd
from tests.kits.scoring import every_way, make_pack, rows, texture

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
SECONDARY = "1.2.840.10008.5.1.4.1.1.7"
BESIDE = "Another file of the same volume could not be read."


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack that says it was trained on every modality and kind."""
    ways = every_way()
    modalities = sorted({way.partition(":")[0] for way in ways} - {"generic"})
    return make_pack(tmp_path_factory.mktemp("packs") / "all", adapters=ways, modalities=modalities)


def _slice(path: Path, number: int, **tags: Any) -> Path:
    """Write one slice of a body in air; slices differ, so that no two have the same bytes."""
    pixels = np.full((32, 40), 24, np.int16)
    pixels[6:26, 6:34] = 1064
    pixels[12:16, 10:20] = 1500 + number
    values = {
        "Modality": "CT",
        "SOPClassUID": CT,
        "SOPInstanceUID": f"1.2.3.{number + 1}",
        "InstanceNumber": number + 1,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "ImagePositionPatient": [0, 0, 5 * number],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [1, 1],
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    }
    return write_dicom(path, pixels, **(values | tags))


def _score(folder: Path, pack: Path) -> dict[str, dict[str, Any]]:
    return rows(score(folder, model=pack, workers=1, prompt="a bright bone"))


def test_a_slice_without_all_its_pixels_fails_and_says_so_the_others_say_that_another_did(
    pack: Path, tmp_path: Path
) -> None:
    for number in range(6):
        _slice(tmp_path / f"{number}", number)
    broken = tmp_path / "3"
    broken.write_bytes(broken.read_bytes()[:-700])
    found = _score(tmp_path, pack)
    assert {row["status"] for row in found.values()} == {"failed"}
    assert {row["reason"] for row in found.values()} == {"truncated"}
    assert "another file" not in found["3"]["message"].lower()
    assert [row["message"] for name, row in found.items() if name != "3"] == [BESIDE] * 5
    assert len({row["study"] for row in found.values()}) == 1


def test_a_volume_has_the_same_vectors_as_metaimage_as_nifti_and_packed(pack: Path, tmp_path: Path) -> None:
    stored = np.stack([texture(number, 40, 32) for number in range(6)]).astype(np.int16)
    folder = tmp_path / "in"
    folder.mkdir()
    write_mha(folder / "one.mha", stored)
    write_mhd(folder / "two.mhd", stored)
    header, voxels = metaimage(stored, data="three.raw.gz", changed={"CompressedData": "True"})
    (folder / "three.mhd").write_bytes(header)
    (folder / "three.raw.gz").write_bytes(gzip.compress(voxels))
    nibabel.save(nibabel.Nifti1Image(stored.T, np.diag([-1.0, -1, 1, 1])), folder / "four.nii")  # pyright: ignore
    embedded = embed(folder, tmp_path / "out", model=pack, workers=1, modality="mri")
    assert embedded.counts == {"files": 6, "embedded": 6, "skipped": 0, "failed": 0, "studies": 4}
    vectors = embedded.vectors("units")
    assert len(vectors) == 4
    np.testing.assert_allclose(vectors, np.broadcast_to(vectors[0], vectors.shape), atol=1e-6)


def test_a_slice_with_a_broken_header_leaves_a_gap_that_is_named(pack: Path, tmp_path: Path) -> None:
    for number in range(6):
        _slice(tmp_path / f"{number}", number)
    broken = tmp_path / "3"
    broken.write_bytes(broken.read_bytes()[:500])
    found = _score(tmp_path, pack)
    assert found["3"]["status"] == "failed"
    assert found["3"]["reason"] != "uneven_slices"
    others = [row for name, row in found.items() if name != "3"]
    assert {(row["status"], row["reason"]) for row in others} == {("failed", "uneven_slices")}
    assert all("slices are missing between 10.0 and 20.0 mm" in row["message"] for row in others)


def test_a_whole_series_is_scored_once_and_a_bad_one_beside_it_does_not_matter(pack: Path, tmp_path: Path) -> None:
    for number in range(5):
        _slice(tmp_path / f"good/{number}", number)
        _slice(
            tmp_path / f"bad/{number}",
            number,
            SeriesInstanceUID="1.2.9",
            ImagePositionPatient=[number % 2 * 3, 0, 5 * number],
        )
    run = score(tmp_path, model=pack, workers=1, prompt="a bright bone")
    found = rows(run)
    assert {row["status"] for name, row in found.items() if name.startswith("good")} == {"scored"}
    assert {row["reason"] for name, row in found.items() if name.startswith("bad")} == {"uneven_slices"}
    assert "shifted sideways" in found["bad/0"]["message"]
    assert {row["modality"] for row in run.scores.to_pylist()} == {"ct"}


def test_times_of_an_mr_series_and_a_slice_of_another_size_are_scored(pack: Path, tmp_path: Path) -> None:
    for number in range(4):
        for time in (1, 2):
            _slice(
                tmp_path / f"{time}-{number}",
                number + 10 * time,
                Modality="MR",
                SOPClassUID=MR,
                TemporalPositionIdentifier=time,
                ImagePositionPatient=[0, 0, 5 * number],
            )
    wide = pydicom.dcmread(tmp_path / "1-3")
    wide.Rows, wide.Columns = 40, 32
    wide.save_as(tmp_path / "1-3")
    found = _score(tmp_path, pack)
    assert {row["status"] for row in found.values()} == {"scored"}


def test_a_ct_exported_as_captures_is_scored_as_the_volume_it_was(pack: Path, tmp_path: Path) -> None:
    scored = []
    for folder, sop_class in (("slices", CT), ("captures", SECONDARY)):
        for number in range(5):
            _slice(tmp_path / folder / f"{number}", number, SOPClassUID=sop_class)
        run = score(tmp_path / folder, model=pack, workers=1, prompt="a bright bone")
        assert {row["status"] for row in rows(run).values()} == {"scored"}
        scored.append([(row["class"], row["logit"]) for row in run.scores.to_pylist()])
    assert scored[0] == scored[1]


def test_a_mammogram_for_processing_is_not_scored_beside_its_image_for_presentation(pack: Path, tmp_path: Path) -> None:
    for name, intent in (("raw", "FOR PROCESSING"), ("shown", "FOR PRESENTATION")):
        _slice(
            tmp_path / name,
            ord(name[0]),
            Modality="MG",
            SOPClassUID="1.2.840.10008.5.1.4.1.1.1.2",
            PresentationIntentType=intent,
            ImageLaterality="L",
            ViewPosition="CC",
        )
    run = score(tmp_path, model=pack, workers=1, prompt="a bright bone")
    found = rows(run)
    assert (found["raw"]["status"], found["raw"]["reason"]) == ("skipped", "companion")
    assert found["shown"]["status"] == "scored"
    assert {row["num_images"] for row in run.scores.to_pylist()} == {1}
    assert run.exit_code == 0


def test_a_record_is_one_unit_and_is_seen_as_its_sheet_by_a_pack_that_knows_records(pack: Path, tmp_path: Path) -> None:
    ecg_record(tmp_path)
    run = score(tmp_path, model=pack, workers=1, prompt="a bright bone")
    found = rows(run)
    assert {(row["status"], row["reason"], row["kind"]) for row in found.values()} == {("scored", None, "signal")}
    assert {row["num_images"] for row in run.scores.to_pylist()} == {5}
    assert len({row["unit"] for row in found.values()}) == 1
    assert set(found) == {"rhythm.dat", "rhythm.hea"}


def test_a_slide_without_scale_fails_unless_the_table_states_one(pack: Path, tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    for name in ("said.tiff", "unsaid.tiff"):
        slide(folder / name, 1024, 1536, None)
    (tmp_path / "t.csv").write_text("file,modality,mpp_um\nsaid.tiff,pathology,0.5\nunsaid.tiff,pathology,\n")
    found = rows(score(folder, model=pack, workers=1, prompt="a tumour", table=tmp_path / "t.csv"))
    assert found["said.tiff"]["status"] == "scored", found["said.tiff"]["message"]
    assert "0.5 µm/px as the user says" in found["said.tiff"]["steps"]
    assert found["unsaid.tiff"]["reason"] == "no_scale"
    assert "mpp_um" in found["unsaid.tiff"]["message"]
