"""A run says when its images look unlike those that its pack was measured on: in run.json, report and a column."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from medclip import embed, score
from medclip.models.packs.pack import update_pack
from medclip.models.prototypes.home_images import FILE_NAME, fit_home, save_homes
from medclip.scoring.cautions import far_notes
from medclip.settings import Settings
from tests.kits.progress import Recorded
from tests.kits.scoring import write_dicom

ONE = Settings(workers=1)
NUM = 14


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen studies of one film each, and one that is cut."""
    root = tmp_path_factory.mktemp("films")
    for number in range(NUM):
        write_dicom(root / f"{number:02}.dcm", number, study_uid=f"1.2.3.{number}", BodyPartExamined="CHEST")
    cut = write_dicom(root / "cut.dcm", 99, study_uid="1.2.3.99", BodyPartExamined="CHEST")
    cut.write_bytes(cut.read_bytes()[:-2000])
    return root


def with_home(pack: Path, films: Path, folder: Path, *, shift: float) -> Path:
    """Copy a pack, and let it know images like these films, or others."""
    shutil.copytree(pack, folder)
    vectors = embed(films, model=pack, settings=ONE).vectors("units")
    rng = np.random.default_rng(0)
    around = vectors[rng.integers(0, len(vectors), 200)] + 0.02 * rng.normal(size=(200, vectors.shape[1]))
    around[:, 0] += shift
    around /= np.linalg.norm(around, axis=1, keepdims=True)
    beside = folder.parent / f"{folder.name}-home"
    beside.mkdir()
    save_homes(beside, {"xray": fit_home(around[:120], around[120:], "Testville")})
    update_pack(folder, extra_files={FILE_NAME: (beside / FILE_NAME).read_bytes()})
    return folder


def test_films_from_elsewhere_are_named_at_the_end_in_run_json_and_in_the_report(
    pack: Path, films: Path, tmp_path: Path
) -> None:
    recorded = Recorded()
    far = with_home(pack, films, tmp_path / "far", shift=5.0)
    run = score(films, tmp_path / "out", model=far, settings=ONE, progress=recorded)
    (note,) = [note for note in run.notes if "Testville" in note]
    assert note.startswith(f"{NUM} of {NUM} radiographs (100 %) are unlike those")
    assert note in recorded.notes
    assert note in json.loads((tmp_path / "out" / "run.json").read_text())["notes"]
    assert "Testville" in (tmp_path / "out" / "report.html").read_text()
    distances = dict(zip(run.files["path"].to_pylist(), run.files["home_distance"].to_pylist(), strict=True))
    assert distances.pop("cut.dcm") is None
    assert min(distances.values()) > 1
    again = score(films, tmp_path / "out", model=far, settings=ONE, report={"sort_by": "chest_xray_view:pa"})
    assert again.already_finished
    assert "Testville" in (tmp_path / "out" / "report.html").read_text()


def test_films_of_the_pack_s_own_source_are_passed_over_in_silence(pack: Path, films: Path, tmp_path: Path) -> None:
    near = with_home(pack, films, tmp_path / "near", shift=0.0)
    run = score(films, tmp_path / "out", model=near, settings=ONE)
    assert not [note for note in run.notes if "Testville" in note]
    assert max(d for d in run.files["home_distance"].to_pylist() if d is not None) < 1.5


class Counted:
    """A ledger that has nothing but counts."""

    def __init__(self, *counts: tuple[str, str, int, int, int]) -> None:
        self.far_counts = lambda: list(counts)


def test_one_scanner_from_elsewhere_among_many_others_is_named(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(150, 8))
    save_homes(tmp_path, {"xray": fit_home(vectors[:100], vectors[100:], "Testville")})
    many, few = ("xray", "Agfa", 400, 16, 380), ("xray", "Siemens", 30, 27, 28)
    (note,) = far_notes(Counted(many, few), tmp_path)  # pyright: ignore[reportArgumentType]
    assert note.startswith("27 of 30 radiographs by Siemens (90 %) are unlike")
    (whole,) = far_notes(Counted(("xray", "Agfa", 40, 16, 40), few), tmp_path)  # pyright: ignore[reportArgumentType]
    assert "By maker: Siemens 27 of 30 and Agfa 16 of 40." in whole


@pytest.mark.parametrize(
    "counted",
    [("xray", "Agfa", 400, 20, 400), ("xray", "", 9, 9, 9), ("xray", "", 12, 3, 12), ("oct", "", 50, 50, 50)],
)
def test_chance_few_studies_and_modalities_without_a_measure_are_passed_over(
    counted: tuple[str, str, int, int, int], tmp_path: Path
) -> None:
    vectors = np.random.default_rng(0).normal(size=(150, 8))
    save_homes(tmp_path, {"xray": fit_home(vectors[:100], vectors[100:], "Testville")})
    assert far_notes(Counted(counted), tmp_path) == ()  # pyright: ignore[reportArgumentType]


def test_a_pack_that_does_not_know_says_nothing(pack: Path, films: Path, tmp_path: Path) -> None:
    run = score(films, tmp_path / "out", model=pack, settings=ONE)
    assert not [note for note in run.notes if "unlike those" in note]
    assert set(run.files["home_distance"].to_pylist()) == {None}


def test_scores_of_embeddings_have_the_same_distances_and_the_same_sentence(
    pack: Path, films: Path, tmp_path: Path
) -> None:
    far = with_home(pack, films, tmp_path / "far", shift=5.0)
    files = score(films, tmp_path / "files", model=far, settings=ONE)
    stored = score(
        embed(films, tmp_path / "stored", model=far, settings=ONE), tmp_path / "out", model=far, settings=ONE
    )
    assert stored.files.equals(files.files)
    assert stored.notes == files.notes
