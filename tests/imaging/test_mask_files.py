"""Masks in the formats of other tools: what each row of `READERS` reads, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from medclip.errors import MedclipError, Reason
from medclip.imaging.mask_files import MaskOf, _of_runs, filled, read_mask_of
from medclip.settings import Settings
from tests.kits.scoring import write_dicom

SIZE = (90, 70)
MASK = np.zeros(SIZE, np.bool_)
MASK[10:30, 5:25] = MASK[50:60, 40:66] = True


def read(path: Path, image: Path = Path("a.png"), structure: str = "lesion") -> np.ndarray:
    return read_mask_of(path, MaskOf(image, SIZE, structure), Settings())


def refusal(path: Path, **more: Any) -> MedclipError:
    with pytest.raises(MedclipError) as caught:
        read(path, **more)
    assert caught.value.where is not None
    return caught.value


@pytest.mark.parametrize("shape", [(70, 90), (70, 90, 1)])
def test_a_nifti_of_one_slice_lies_columns_first(tmp_path: Path, shape: tuple[int, ...]) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(MASK.T.reshape(shape).astype(np.uint8), np.eye(4)), tmp_path / "m.nii.gz")  # type: ignore[attr-defined]
    assert (read(tmp_path / "m.nii.gz") == MASK).all()


def test_a_volume_is_no_mask_of_an_image(tmp_path: Path) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.ones((7, 9, 4), np.uint8), np.eye(4)), tmp_path / "m.nii")  # type: ignore[attr-defined]
    assert refusal(tmp_path / "m.nii").reason is Reason.NOT_SUPPORTED_YET


def write_segmentation(path: Path, image: Path, masks: dict[str, np.ndarray]) -> None:
    import highdicom as hd
    from pydicom import dcmread
    from pydicom.sr.codedict import codes

    source = dcmread(image)
    for name in ("PatientSex", "PatientBirthDate", "StudyDate", "StudyTime", "AccessionNumber", "StudyID", "PatientID"):
        setattr(source, name, source.get(name, ""))
    segments = [
        hd.seg.SegmentDescription(
            number,
            name,
            codes.SCT.MorphologicallyAbnormalStructure,
            codes.SCT.Lesion,
            hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(masks, 1)
    ]
    hd.seg.Segmentation(
        [source],
        np.stack(list(masks.values()), axis=-1)[None].astype(np.uint8),
        hd.seg.SegmentationTypeValues.BINARY,
        segments,
        series_instance_uid="1.2.3",
        series_number=1,
        sop_instance_uid="1.2.3.4",
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
    ).save_as(path)


@pytest.mark.filterwarnings("ignore")
def test_a_dicom_segmentation_is_read_for_its_image_and_segment_alone(tmp_path: Path) -> None:
    image, other = (write_dicom(tmp_path / f"{n}.dcm", n, modality="DX") for n in (1, 2))
    write_segmentation(tmp_path / "seg.dcm", image, {"Lesion": MASK, "Cyst": ~MASK})
    assert (read(tmp_path / "seg.dcm", image) == MASK).all()
    assert (read(tmp_path / "seg.dcm", image, "cyst") == ~MASK).all()
    assert "none of which is called 'polyp'" in refusal(tmp_path / "seg.dcm", image=image, structure="polyp").message
    assert "refers to other images" in refusal(tmp_path / "seg.dcm", image=other).message
    assert "this image is none" in refusal(tmp_path / "seg.dcm", image=tmp_path / "seg.txt").message
    assert refusal(image, image=image).reason is Reason.NOT_SUPPORTED_YET  # an image in the place of its mask


def runs(mask: np.ndarray) -> list[int]:
    flat = np.concatenate([[False], mask.T.ravel()])
    ends = np.flatnonzero(np.diff(flat.astype(np.int8))).tolist()
    return np.diff(np.array([0, *ends, mask.size])).tolist()


def packed(counts: list[int]) -> str:
    """Write runs as pycocotools does (rleToString)."""
    text = ""
    for n, value in enumerate(counts):
        value -= counts[n - 2] if n > 2 else 0
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text += chr((bits | 32 if more else bits) + 48)
    return text


@given(st.integers(0, 2**32 - 1))
def test_runs_and_packed_runs_are_the_mask_that_they_were_made_of(seed: int) -> None:
    mask = np.random.default_rng(seed).random((7, 11)) < 0.4
    assert (_of_runs(runs(mask), (7, 11)) == mask).all()
    assert (_of_runs(packed(runs(mask)), (7, 11)) == mask).all()


def coco(path: Path, **image: Any) -> Path:
    box = [5, 10, 25, 10, 25, 30, 5, 30]
    document = {
        "images": [{"id": 7, "file_name": "set/a.png", "height": 90, "width": 70} | image, {"id": 8, "file_name": "b"}],
        "categories": [{"id": 1, "name": "lesion"}, {"id": 2, "name": "ruler"}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "segmentation": [box, [40, 50, 66, 50, 66, 60, 40, 60]]},
            {"image_id": 7, "category_id": 2, "segmentation": {"size": list(SIZE), "counts": [0, MASK.size]}},
            {"image_id": 8, "category_id": 1, "segmentation": [[0, 0, 70, 0, 70, 90]]},
        ],
    }
    path.write_text(json.dumps(document))
    return path


def test_coco_is_read_for_one_image_and_category(tmp_path: Path) -> None:
    path = coco(tmp_path / "coco.json")
    assert (read(path, Path("elsewhere/a.png")) == MASK).all()
    assert read(path, structure="ruler").all()
    assert "none of which" in refusal(path, structure="polyp").message
    assert "names 0 images" in refusal(path, image=Path("c.png")).message
    assert "80 x 70 pixels" in refusal(coco(tmp_path / "other.json", height=80)).message


def feature(rings: list[Any], name: str | None) -> dict[str, Any]:
    about = {} if name is None else {"classification": {"name": name}}
    return {"type": "Feature", "properties": about, "geometry": {"type": "Polygon", "coordinates": rings}}


def test_geojson_has_holes_and_classes(tmp_path: Path) -> None:
    outer, hole = [[0, 0], [70, 0], [70, 90], [0, 90], [0, 0]], [[10, 10], [20, 10], [20, 20], [10, 20], [10, 10]]
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature([outer, hole], "Lesion")]}))
    mask = read(path)
    assert not mask[10:20, 10:20].any()
    assert mask.sum() == 90 * 70 - 100
    both = [feature([hole], "Lesion"), feature([outer], "Stroma")]
    path.with_name("both.geojson").write_text(json.dumps(both))
    assert read(path.with_name("both.geojson")).sum() == 100
    assert "Stroma" in refusal(path.with_name("both.geojson"), structure="polyp").message
    path.with_name("none.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    assert not read(path.with_name("none.geojson")).any()


@given(st.lists(st.tuples(st.floats(-3, 15), st.floats(-3, 15)), min_size=3, max_size=3))
def test_a_polygon_is_the_pixels_whose_centre_it_holds(corners: list[tuple[float, float]]) -> None:
    ring = np.array(corners)
    rows, columns = np.mgrid[:10, :12] + 0.5
    centres = np.stack([columns.ravel(), rows.ravel()], axis=1)
    inner, outer = (Outline([*ring, ring[0]], closed=True).contains_points(centres, radius=r) for r in (-1e-6, 1e-6))
    drawn = filled([ring], (10, 12)).ravel()
    assert (drawn == inner)[inner == outer].all()  # on an edge either may be


@pytest.mark.parametrize(
    "text", ["{", "{}", '[{"a": 1}]', '{"images": [], "annotations": []}', '{"images": 1, "annotations": 2}']
)
def test_other_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.json").write_text(text)
    assert refusal(tmp_path / "m.json").reason in (
        Reason.TABLE_INVALID,
        Reason.CORRUPT,
        Reason.UNKNOWN_FORMAT,
        Reason.NOT_AN_IMAGE,
    )
