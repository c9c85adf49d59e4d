"""What runs are over: a path, or images that a caller holds; both give the same rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medclip.api.embed import embed
from medclip.api.run_arguments import inputs_of
from medclip.api.score import score
from medclip.errors import MedclipError, Reason
from medclip.runs.outputs.score_run import ScoreRun
from tests.kits.files import write_image
from tests.kits.scoring import every_way, make_pack, texture

ASKED = {"prompt": "a bright blob", "modality": "xray", "group_by": "file", "workers": 1}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny", adapters=every_way())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for n in range(3):
        write_image(folder / f"{n}.png", texture(n, 80, 90))
    return folder


def _answers(run: ScoreRun) -> dict[str, float]:
    """Return probabilities by the last part of each name."""
    name_of = {row["study"]: Path(row["path"]).name for row in run.files.to_pylist() if row["study"]}
    return {name_of[row["study"]]: row["probability"] for row in run.scores.to_pylist()}


def test_a_list_of_paths_has_the_answers_of_their_folder(pack: Path, images: Path) -> None:
    of_folder = _answers(score(images, model=pack, **ASKED))
    of_list = score([images / "2.png", str(images / "0.png"), images / "gone.png"], model=pack, **ASKED)
    assert _answers(of_list) == {name: of_folder[name] for name in ("0.png", "2.png")}
    files = of_list.files.to_pylist()
    assert [row["path"] for row in files] == [str(images / name) for name in ("0.png", "2.png", "gone.png")]
    assert [row["reason"] for row in files] == [None, None, "missing_file"]


def test_arrays_have_the_answers_of_their_files(pack: Path, images: Path) -> None:
    of_folder = _answers(score(images, model=pack, **ASKED))
    arrays = [texture(n, 80, 90) for n in range(3)]
    run = score(arrays, model=pack, **ASKED)
    assert [row["path"] for row in run.files.to_pylist()] == ["image 0", "image 1", "image 2"]
    np.testing.assert_allclose(list(_answers(run).values()), list(of_folder.values()), atol=1e-6)
    assert score(arrays[1], model=pack, **ASKED).counts["scored"] == 1


def test_a_run_over_arrays_goes_on_and_grows_as_others_do(pack: Path, tmp_path: Path) -> None:
    arrays = [texture(n, 80, 90) for n in range(2)]
    score(arrays, tmp_path / "out", model=pack, **ASKED)
    assert score([array.copy() for array in arrays], tmp_path / "out", model=pack, **ASKED).already_finished
    more = [*arrays, texture(2, 80, 90)]
    with pytest.raises(MedclipError, match="1 file came since") as caught:
        score(more, tmp_path / "out", model=pack, **ASKED)
    assert caught.value.reason is Reason.OUTPUT_IN_USE
    assert score(more, tmp_path / "out", model=pack, add=True, **ASKED).counts["scored"] == 3
    with pytest.raises(MedclipError, match="1 scored file has changed since"):
        score([more[0] // 2, *more[1:]], tmp_path / "out", model=pack, **ASKED)


def test_a_data_frame_names_files_and_what_they_are(pack: Path, images: Path) -> None:
    paths = [str(images / f"{n}.png") for n in (1, 0)]
    frame = pd.DataFrame({"file": paths, "modality": "xray", "patient": ["a", "b"], "study": ["s", "t"]})
    run = score(frame, model=pack, prompt="a bright blob", workers=1)
    assert run.counts["scored"] == run.counts["studies"] == 2
    assert len(set(run.scores.column("patient").to_pylist())) == 2
    assert run.table_rows_elsewhere == 0
    with pytest.raises(MedclipError, match="is a data frame, and there is a table beside it"):
        score(frame, model=pack, table=frame)


def test_images_are_embedded_as_they_are_scored(pack: Path, images: Path, tmp_path: Path) -> None:
    store = embed([images / "0.png", texture(1, 80, 90)], tmp_path / "e", model=pack, modality="xray", workers=1)
    assert store.num_views == 2
    assert store.files.column("path").to_pylist() == [str(images / "0.png"), "image 1"]


def test_a_path_that_is_not_there_and_no_image_at_all_are_refused() -> None:
    for images, reason in (("nowhere", Reason.MISSING_FILE), (5, Reason.WRONG_USE)):
        with pytest.raises(MedclipError) as caught:
            inputs_of(images, None, "what is scored")
        assert caught.value.reason is reason
    with pytest.raises(MedclipError, match="no image was given"):
        score([])
