"""Stored pixels, voxels, signals and slides of real files are what independent libraries and maintainers say."""

from __future__ import annotations

import ast
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from medclip.adapters.base import single
from medclip.adapters.ecg import raw_signal
from medclip.adapters.registry import read_unit
from medclip.dicom.pixels.decoded import MIN_SIDE
from medclip.dicom.pixels.render import read_stored
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.sniff import Format
from medclip.imaging.raster import read_raster
from medclip.imaging.volume.read import read_volume
from medclip.sample import Kind
from tests.field.conftest import SETTINGS, Field, Row

pytestmark = [pytest.mark.shared, pytest.mark.field]


def _number(text: str) -> float:
    return float(text)


def test_stored_pixels_of_every_dicom_file_are_the_manifests(field: Field) -> None:
    checked = 0
    for name, row in field.rows.items():
        if not row["stored_sha1_12"]:
            continue
        facts = field.facts[name]
        stored = read_stored(field.refs[name].path, SETTINGS, header=facts.header)
        frames = int(row["frames"] or 1)
        channels = (int(row["channels"]),) if row["channels"] else ()
        assert stored.shape == ((frames,) if frames > 1 else ()) + (int(row["rows"]), int(row["cols"]), *channels), name
        body = np.ascontiguousarray(stored.astype(np.dtype(row["dtype"])))
        same = hashlib.sha1(body.tobytes()).hexdigest()[:12] == row["stored_sha1_12"]
        # Decoders of 12-bit lossy JPEG differ by a rounding of the cosine transform; all others must agree exactly.
        assert same or row["transfer_syntax"].endswith(".4.51"), name
        tolerance = {"rel": 1e-4} if same else {"abs": 1}
        assert float(stored.min()) == pytest.approx(_number(row["stored_min"]), **tolerance), name
        assert float(stored.max()) == pytest.approx(_number(row["stored_max"]), **tolerance), name
        checked += 1
    if not checked:
        pytest.skip("the manifest names no stored pixels")


def test_images_have_the_size_and_range_of_the_manifest(field: Field) -> None:
    for name, row in field.of("image"):
        fmt = field.facts[name].format
        if fmt not in (Format.PNG, Format.JPEG, Format.TIFF) or not row["rows"]:
            continue
        pixels = read_raster(field.refs[name].path, fmt, SETTINGS, grey=False).pixels
        assert pixels.shape[:2] == (int(row["rows"]), int(row["cols"])), name
        if row["channels"] != "4":  # transparency is composited, so values may change
            assert float(pixels.min()) == _number(row["stored_min"]), name
            assert float(pixels.max()) == _number(row["stored_max"]), name


def test_volumes_have_the_shape_spacing_orientation_and_range_of_the_manifest(field: Field) -> None:
    for name, row in field.of("volume"):
        problem = field.problem(name)
        assert problem is None, (name, problem)
        if not row["shape"]:
            continue
        source, modality = field.source(name)
        shows = min(_whole(row["shape"])[:3]) >= MIN_SIDE and row["stored_min"] != row["stored_max"]
        sample = read_unit(source, modality, SETTINGS) if shows else None
        headers = sample.headers if sample is not None else read_volume(source.paths, source.facts, SETTINGS).headers
        assert tuple(headers["stored_shape"]) == _whole(row["shape"]), name
        expected = [float(value) for value in row["spacing"].split(",")]
        assert list(headers["stored_spacing"]) == pytest.approx(expected, abs=6e-4), name
        axes, _, angle = row["orientation"].partition(" oblique ")
        assert headers["stored_orientation"] == axes, name
        assert headers["oblique_deg"] == pytest.approx(float(angle.rstrip("°") or 0), abs=0.06), name
        low, high = headers["value_range"]
        assert low == pytest.approx(_number(row["stored_min"]), rel=1e-4, abs=1e-6), name
        assert high == pytest.approx(_number(row["stored_max"]), rel=1e-4), name


def _whole(text: str) -> tuple[int, ...]:
    return tuple(int(value) for value in text.split(","))


def test_signals_have_the_leads_samples_and_rate_of_the_manifest(field: Field) -> None:
    names = [name for name, row in field.of("signal") if row["leads"]]
    for name in names:
        problem = field.problem(name)
        assert problem is None, (name, problem)
        source, modality = field.source(name)
        if source.path.name != Path(name).name:  # a segment of a longer record, with a row of its own
            source = single(field.refs[name].path, field.facts[name])
        assert source.kind is Kind.SIGNAL, name
        row, signal = field.rows[name], raw_signal(source, SETTINGS)
        stored = (len(signal.stored_leads), signal.stored_samples, signal.stored_hz)
        assert stored == (int(row["leads"]), int(row["samples"]), _number(row["hz"])), name
        if not signal.mask.any():  # none of its leads is one of the twelve: a model would see zeros
            with pytest.raises(MedclipError) as refused:
                read_unit(source, modality, SETTINGS)
            assert refused.value.reason is Reason.NOT_AN_IMAGE, name
            continue
        sample = read_unit(source, modality, SETTINGS)
        assert sample.signal is not None, name
        assert sample.signal.values_mv.shape[0] == 12, name
        assert np.isfinite(sample.signal.values_mv).all(), name


def test_slides_have_the_levels_and_scale_of_the_manifest(field: Field) -> None:
    from medclip.imaging.slides import open_slide

    for name, row in field.of("slide"):
        problem = field.problem(name)
        if row["modality"] == "SEG":
            assert problem is not None, name
            assert problem.reason is Reason.NOT_AN_IMAGE, name
            continue
        assert problem is None, (name, problem)
        source, _ = field.source(name)
        reader = open_slide(source.paths, SETTINGS)
        try:
            levels = [[level.width_px, level.height_px] for level in reader.levels]
            if row["levels"].startswith("[["):
                expected = ast.literal_eval(row["levels"].rstrip("…"))
                assert levels[: len(expected)] == expected, name
            elif row["levels"]:
                assert levels[0] == _tifffile_size(row), name
            if row["mpp_um"]:
                assert reader.mpp_um == pytest.approx((_number(row["mpp_um"]),) * 2, rel=1e-3), name
        finally:
            reader.close()


def _tifffile_size(row: Row) -> list[int]:
    """Read width and height of the first series out of tifffile's words, such as 3x131x93uint8."""
    numbers = [int(n) for n in re.findall(r"\d+(?=x|[a-z])", ast.literal_eval(row["levels"])[0].split("uint")[0] + "u")]
    if len(numbers) == 3:
        numbers = numbers[:2] if numbers[2] in (3, 4) else numbers[1:]
    return [numbers[1], numbers[0]]


def test_renderings_agree_with_independent_viewers(field: Field) -> None:
    """Expected images lie in expected/ beside the file of the same stem."""
    compared = 0
    images = [name for name, _ in field.of("expectation") if name.endswith((".jpg", ".jpeg", ".png"))]
    for name in images:
        path = field.refs[name].path
        twins = [f for f in path.parent.parent.iterdir() if f.is_file() and f.stem == path.stem]
        if field.facts[name].format not in (Format.PNG, Format.JPEG) or not twins:
            continue
        theirs = _grey(read_raster(path, field.facts[name].format, SETTINGS, grey=False).pixels)
        ours = _grey(_shown(field, twins[0]))
        if theirs.shape != ours.shape:
            from medclip.imaging.geometry import resize

            assert abs(theirs.shape[0] / theirs.shape[1] - ours.shape[0] / ours.shape[1]) < 0.02, name
            ours = resize(ours.round().astype(np.uint8)[:, :, None], *theirs.shape)[:, :, 0].astype(float)
        assert np.abs(ours - theirs).mean() < 8, (name, np.abs(ours - theirs).mean())
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.97, name
        compared += 1
    if not images:
        pytest.skip("the manifest expects no renderings")
    assert compared


def _shown(field: Field, path: Path):
    from medclip.dicom.pixels.render import read_dicom
    from medclip.imaging.intensity import scale_to_uint8

    name = path.relative_to(field.root).as_posix()
    pixels = read_dicom(path, SETTINGS, header=field.facts[name].header, frame=0).pixels
    return scale_to_uint8(pixels, 0, 255 if pixels.dtype == np.uint8 else 1)


def _grey(pixels) -> np.ndarray:
    values = pixels.astype(float)
    return values[:, :, 0] if values.shape[2] == 1 else values @ np.array([0.299, 0.587, 0.114])


def test_series_agree_with_the_volumes_that_another_converter_made(field: Field) -> None:
    """NIfTI files in expected/ were made from the DICOM files of the folder above."""
    from medclip.imaging.volume.read import read_nifti

    compared = 0
    converted = [(name, row) for name, row in field.of("expectation") if name.endswith((".nii", ".nii.gz"))]
    for name, row in converted:
        folder = str(Path(name).parent.parent.as_posix())
        expected = read_nifti(field.refs[name].path, SETTINGS).volume
        volumes = []
        for study, unit in field.units:
            if all(str(Path(ref.name).parent.as_posix()) == folder for ref in unit.files) and not unit.problem:
                source, modality = field.source(unit.files[0].name)
                assert unit.kind is Kind.VOLUME, name
                sample = read_unit(source, modality or study.modality, SETTINGS)
                assert sample.volume is not None
                volumes.append(sample.volume)
        assert volumes, name
        np.testing.assert_allclose(volumes[0].affine, expected.affine, atol=2e-2, err_msg=name)
        ours = np.concatenate([v.voxels[None] if v.voxels.ndim == 3 else v.voxels for v in volumes])
        theirs = expected.voxels[None] if expected.voxels.ndim == 3 else expected.voxels
        assert ours.shape[1:] == theirs.shape[1:], name
        if "label" not in row["note"].lower():
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
        compared += 1
    if not converted:
        pytest.skip("the manifest expects no converted volumes")
    assert compared
