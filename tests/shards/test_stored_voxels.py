from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medclip.adapters.base import source_of
from medclip.adapters.registry import preprocessing_of, read_unit
from medclip.errors import MedclipError, Reason
from medclip.imaging.volume.voxels import Voxels, voxels_of
from medclip.sample import Kind, Modality
from medclip.settings import Settings
from medclip.shards.reading.check_folder import check_shards
from medclip.shards.reading.samples import ShardReader
from medclip.shards.stored_data import MAX_BYTES, decode_voxels, encode_voxels, facts_of
from medclip.shards.writing.build import Form, build_shards
from tests.kits.loops import sector, write_cine
from tests.kits.training import make_shards
from tests.kits.volume_models import SPACING_MM, body, ct, loop, volume_shards, write_ct, write_ct_file

SETTINGS = Settings(workers=1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return volume_shards(tmp_path_factory.mktemp("volumes"), 3, 1)


@pytest.mark.parametrize("voxels", [ct(), loop(), loop(channels=3), ct(values=body() / np.float32(3))])
def test_what_is_stored_comes_back_with_all_that_is_known_of_it(voxels: Voxels) -> None:
    data = encode_voxels(voxels)
    again = decode_voxels(data, json.loads(json.dumps(facts_of(voxels))))
    np.testing.assert_array_equal(again.values, voxels.values)
    assert again.values.dtype == voxels.values.dtype
    assert (again.kind, again.unit, again.plane) == (voxels.kind, voxels.unit, voxels.plane)
    assert (again.spacing_mm, again.frame_ms) == (voxels.spacing_mm, voxels.frame_ms)
    np.testing.assert_array_equal(np.load(io.BytesIO(data), allow_pickle=False), voxels.values)


def _npy(values: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, values, version=version, allow_pickle=values.dtype.hasobject)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        pickle.dumps(body()),
        _npy(np.array([[[None, 1]]], object)),
        _npy(np.zeros((2, 3, 4), np.float64)),
        _npy(np.zeros((2, 3), np.int16)),
        _npy(np.asfortranarray(np.zeros((2, 3, 4), np.int16))),
        _npy(np.zeros((2, 3, 4), ">i2")),
        _npy(np.zeros((2, 3, 4), np.int16), (2, 0)),
        encode_voxels(ct())[:-1],
        encode_voxels(ct()) + b"\0",
    ],
)
def test_anything_else_is_refused_and_never_unpickled(data: bytes) -> None:
    with pytest.raises(MedclipError) as caught:
        decode_voxels(data, facts_of(ct()))
    assert caught.value.reason is Reason.CORRUPT


@pytest.mark.parametrize("wrong", [{"kind": "image"}, {"spacing_mm": None}, {"spacing_mm": [1, 0, 1]}, {"kind": None}])
def test_facts_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(MedclipError) as caught:
        decode_voxels(encode_voxels(ct()), {**facts_of(ct()), **wrong})
    assert caught.value.reason is Reason.CORRUPT


def test_a_volume_beyond_the_limit_is_refused() -> None:
    huge = np.broadcast_to(np.int16(0), (MAX_BYTES // 2 // 100 + 1, 10, 10))
    with pytest.raises(MedclipError) as caught:
        encode_voxels(Voxels(huge, Kind.VOLUME, "HU", "axial", (1, 1, 1)))
    assert caught.value.reason is Reason.TOO_LARGE


def test_shards_hold_the_voxels_as_the_adapter_reads_them(shards: Path) -> None:
    with ShardReader(shards, "train") as reader:
        assert reader.holds == "volumes"
        assert len(reader) == 3
        assert reader.preprocessing == {"ct:volume": preprocessing_of("ct:volume")}
        samples = [reader[i] for i in range(3)]
    seeds = {body(seed=n).tobytes() for n in range(3)}
    for sample in samples:
        assert sample.voxels is not None
        assert sample.voxels.values.tobytes() in seeds
        assert (sample.voxels.plane, sample.voxels.unit) == ("axial", "HU")
        np.testing.assert_allclose(sample.voxels.spacing_mm, SPACING_MM)  # type: ignore[arg-type]
        assert sample.image.shape == (40, 60, 3)
        assert sample.image.max() == 255
        assert "12 x 40 x 60 int16" in repr(sample)


def test_a_sample_is_what_webdataset_knows(shards: Path) -> None:
    with tarfile.open(next(shards.glob("train-*.tar"))) as tar:
        names = [member.name.partition(".")[2] for member in tar][:3]
    assert names == ["npy", "json", "txt"]


def test_a_check_reads_every_volume(shards: Path, tmp_path: Path) -> None:
    assert check_shards(shards).ok
    damaged = volume_shards(tmp_path, 1, 1)
    tar = next(damaged.glob("train-*.tar"))
    data = tar.read_bytes()
    tar.write_bytes(data.replace(b"<i2", b"<f2", 1))
    assert any("cannot be read" in problem for problem in check_shards(damaged).problems)


def test_series_and_loops_are_stored_and_what_has_no_depth_is_rejected_with_its_reason(tmp_path: Path) -> None:
    write_ct(tmp_path / "series")
    write_cine(tmp_path / "moving.dcm", sector(6), FrameTime=40)
    write_cine(tmp_path / "frozen.dcm", np.repeat(sector(1), 6, axis=0), FrameTime=40)
    write_ct_file(tmp_path / "one.nii", num_slices=1)
    Image.fromarray(sector(1)[0]).save(tmp_path / "image.png")
    kinds = {"series": "ct", "moving.dcm": "ultrasound", "frozen.dcm": "ultrasound", "one.nii": "ct", "image.png": "ct"}
    rows = [{"file": name, "patient": name, "modality": modality} for name, modality in kinds.items()]
    form, splits = Form(key=b"k" * 32, stores="volumes"), {"train": 1.0}
    report = build_shards(pd.DataFrame(rows), tmp_path / "s", form, images=tmp_path, splits=splits, settings=SETTINGS)
    assert report.num_samples == 2
    assert report.counts_by_reason == {"frozen_loop": 1, "other_input": 1, "single_slice": 1}
    with ShardReader(report.folder, "train") as reader:
        cine = next(s.voxels for s in (reader[i] for i in range(2)) if s.record.modality is Modality.ULTRASOUND)
    assert cine is not None
    assert cine.frame_ms == 40.0
    source = source_of(tmp_path / "moving.dcm", SETTINGS)
    expected = voxels_of(read_unit(source, Modality.ULTRASOUND, SETTINGS))
    np.testing.assert_array_equal(cine.values, expected.values)


def test_folders_of_images_and_of_volumes_do_not_go_together(shards: Path, tmp_path: Path) -> None:
    images = make_shards(tmp_path)
    with pytest.raises(MedclipError, match="images where the first folder holds volumes") as caught:
        ShardReader([shards, images], "train")
    assert caught.value.where == str(images)


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (volume_shards(tmp_path / name, 1, 1) for name in "ab")
    for tar in first.glob("*.tar"):
        assert tar.read_bytes() == (second / tar.name).read_bytes()
