"""A pack of volumes behind the verbs: embed, adapt, score, view; what it was not trained for has its row and reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

import medclip
from medclip.adapters.base import source_of
from medclip.api.models import export_model
from medclip.errors import MedclipError, Reason
from medclip.explaining.seen import read_seen
from medclip.models.encoding.unit_reader import UnitReader
from medclip.models.packs.pack import read_preprocess
from medclip.sample import Modality
from medclip.settings import Settings
from tests.kits.loops import sector, write_cine
from tests.kits.volume_models import SIZE_PX, ct, ct_input, volume_pack, write_ct, write_ct_file

SETTINGS = Settings(workers=1)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return volume_pack(tmp_path_factory.mktemp("pack") / "clips")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for n in range(2):
        uid = f"1.2.3.{n}"
        write_ct(folder / f"s{n}", seed=n, StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.1", PatientID=str(n))
    write_ct_file(folder / "axial.nii", seed=0)
    write_ct_file(folder / "sagittal.nii", plane="sagittal")
    write_ct_file(folder / "one.nii", num_slices=1)
    write_cine(folder / "loop.dcm", sector(6), FrameTime=40)
    Image.fromarray(sector(1)[0]).save(folder / "image.png")
    return folder


def test_a_folder_is_embedded_and_every_other_file_has_its_reason(files: Path, pack: Path, tmp_path: Path) -> None:
    made = medclip.embed(files, model=pack, out=tmp_path / "e", modality="ct", settings=SETTINGS)
    rows = pq.read_table(tmp_path / "e" / "files.parquet").to_pylist()
    reasons = {row["path"]: row["reason"] for row in rows if "/" not in row["path"]}
    assert reasons == {
        "axial.nii": None,
        "image.png": "other_input",
        "loop.dcm": "other_input",
        "one.nii": "single_slice",
        "sagittal.nii": "other_orientation",
    }
    assert {row["status"] for row in rows if "/" in row["path"]} == {"embedded"}
    assert "6 of 3 units" in repr(made)  # two clips of 8 slices cover 12


def test_a_unit_is_read_as_the_clips_of_the_packs_settings(files: Path, pack: Path) -> None:
    model = medclip.models.load(pack)
    expected = ct_input().clips(ct(seed=0), SIZE_PX)
    with UnitReader(model, SETTINGS) as reader:
        units = [type("Named", (), {"path": files / name, "modality": Modality.CT}) for name in ("s0", "axial.nii")]
        for unit in reader.read(units, lambda _: None):  # type: ignore[arg-type]
            assert unit.problem is None
            np.testing.assert_array_equal(np.stack(list(unit.pixels)), expected)
            np.testing.assert_allclose(unit.features, model.encode_image(expected), atol=1e-6)


def test_one_that_the_model_does_not_take_raises_its_reason(files: Path, pack: Path) -> None:
    model = medclip.models.load(pack)
    with pytest.raises(MedclipError, match="slices are sagittal; the model was trained on axial") as caught:
        model.embed_images([files / "sagittal.nii"], settings=SETTINGS)
    assert caught.value.reason is Reason.OTHER_ORIENTATION
    with pytest.raises(MedclipError) as caught:
        model.embed_images(list(np.random.default_rng(0).integers(0, 255, (1, 40, 40), np.uint8)), settings=SETTINGS)
    assert caught.value.reason is Reason.OTHER_INPUT


def test_a_head_on_its_vectors_scores_series(files: Path, pack: Path, tmp_path: Path) -> None:
    rows = [{"file": f"s{n}", "patient": str(n), "modality": "ct", "finding": "ab"[n]} for n in range(2)]
    medclip.adapt(
        pd.DataFrame(rows),
        "finding",
        model=pack,
        method="linear-probe",
        shots=1,
        test_share=0,
        images=files,
        out=tmp_path / "adapted",
        patient="patient",
        settings=SETTINGS,
    )
    run = medclip.score(files, model=tmp_path / "adapted", out=tmp_path / "scores", settings=SETTINGS)
    scores = run.scores.to_pylist()
    assert {(row["task"], row["num_images"]) for row in scores} == {("finding", 2)}
    assert (tmp_path / "scores" / "report.html").is_file()


def test_what_the_model_sees_is_drawn_and_no_heat_map_is(files: Path, pack: Path, tmp_path: Path) -> None:
    medclip.view(files / "s0", tmp_path / "seen.png", model=pack)
    with Image.open(tmp_path / "seen.png") as drawn:
        assert drawn.width > 1000
    source, preprocess = source_of(files / "axial.nii", SETTINGS), read_preprocess(pack)
    with pytest.raises(MedclipError, match="heat maps are of images") as caught:
        read_seen(source, Modality.CT, preprocess, SETTINGS)
    assert caught.value.reason is Reason.OTHER_INPUT


def test_there_is_no_form_of_it_to_export_and_the_refusal_says_so(pack: Path, tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="neither open_clip nor timm"):
        export_model(pack, tmp_path / "exported")
