"""An image in colour is never taken for one of a modality without colour, but where a table says so of that file.

Nor is a grey image taken for one of a modality that is never grey, unless somebody states it.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from medclip.api.embed import embed
from medclip.api.score import score
from medclip.errors import Reason
from medclip.models.inputs.preprocess import Preprocess
from medclip.runs.units.chunk import ChunkWork, Item
from medclip.runs.units.read_unit import Reading, read
from medclip.sample import Modality, spoken
from medclip.settings import Settings
from tests.imaging.test_colourfulness import dermoscopy
from tests.kits.codestreams import film
from tests.kits.files import write_dicom, write_image
from tests.kits.scoring import digests


def _reading(path: Path, pixels: np.ndarray, modality: Modality | None = None) -> Reading:
    from medclip.adapters.base import source_of

    write_image(path, pixels)
    return read(source_of(path, Settings()), modality, Preprocess(size_px=64), Settings())


def _decided(folder: Path, reading: Reading, name: str, probability: float = 0.97) -> Item:
    file: Any = SimpleNamespace(facts=None)
    item = Item((file,), (file,), None, None, reading=reading, features_VD=np.ones((1, 4), np.float32))
    model = SimpleNamespace(path=folder)  # without a guard
    answers = SimpleNamespace(refuse=lambda modality, part, kind: None)
    context: Any = SimpleNamespace(model=model, min_confidence=0.8, answers=answers)
    work = ChunkWork(cast(Any, context), 0, [item])
    work._decide(name, [(item, probability)])
    return item


@pytest.mark.parametrize("probability", [0.97, 0.5])
@pytest.mark.parametrize("name", [m for m in Modality if m.facts.in_colour is False])
def test_a_photograph_is_not_taken_for_a_grey_modality_however_sure_the_model_is(
    tmp_path: Path, name: str, probability: float
) -> None:
    item = _decided(tmp_path, _reading(tmp_path / "a.png", dermoscopy()), name, probability)
    assert item.modality is None
    assert item.problem is not None
    assert item.problem.reason is Reason.MODALITY_UNCERTAIN
    assert "in colour" in item.problem.sentence
    assert spoken(name) not in item.problem.sentence


def test_of_a_grey_image_and_of_a_modality_in_colour_an_unsure_guess_is_named(tmp_path: Path) -> None:
    film_like = np.repeat(film(8)[..., None], 3, -1)
    for name, pixels in (("ct", film_like), ("dermatology", dermoscopy())):
        item = _decided(tmp_path, _reading(tmp_path / f"{name}.png", pixels), name, 0.5)
        assert item.problem is not None
        assert item.problem.sentence.startswith(f"the image looks most like {spoken(name)} (probability 0.50;")


def test_it_may_be_taken_for_a_modality_in_colour(tmp_path: Path) -> None:
    item = _decided(tmp_path, _reading(tmp_path / "a.png", dermoscopy()), "dermatology")
    assert item.modality is Modality.DERMATOLOGY


def grey_skin() -> np.ndarray:
    """Return a photograph of skin without its colours, stored with three channels."""
    return np.repeat((dermoscopy() @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None], 3, -1)


@pytest.mark.parametrize("probability", [0.97, 0.5])
@pytest.mark.parametrize("name", [m for m in Modality if m.facts.in_colour])
@pytest.mark.parametrize("shape", ["of one channel", "of three"])
def test_a_grey_image_is_not_taken_for_a_modality_that_is_never_grey(
    tmp_path: Path, name: str, probability: float, shape: str
) -> None:
    pixels = grey_skin()[..., 0] if shape == "of one channel" else grey_skin()
    item = _decided(tmp_path, _reading(tmp_path / "a.png", pixels), name, probability)
    assert item.modality is None
    assert item.problem is not None
    assert item.problem.reason is Reason.MODALITY_UNCERTAIN
    assert item.problem.sentence.startswith("the image is grey")
    assert spoken(name) not in item.problem.sentence


@pytest.mark.parametrize("name", ["fundus", "ultrasound", "ecg", "xray"])
def test_a_grey_image_may_be_taken_for_any_other_modality(tmp_path: Path, name: str) -> None:
    assert _decided(tmp_path, _reading(tmp_path / "a.png", grey_skin()), name).modality == name


def test_a_grey_image_keeps_the_modality_that_somebody_states(pack: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a.jpg", grey_skin())
    (tmp_path / "table.csv").write_text("file,modality\na.jpg,dermatology\n")
    stated: tuple[dict[str, Any], ...] = ({"modality": "dermatology"}, {"table": tmp_path / "table.csv"})
    for number, by in enumerate(stated):
        run = score(tmp_path / "in", tmp_path / f"out{number}", model=pack, workers=1, prompt=["a mole"], **by)
        row = run.files.to_pylist()[0]
        assert row["modality"] == "dermatology", row["message"]
        assert row["reason"] != str(Reason.MODALITY_UNCERTAIN)


@pytest.mark.parametrize("tint", [(1, 1, 1), (1, 0.9, 0.7)])
def test_a_radiograph_stored_as_rgb_and_tinted_is_inferred_as_before(tmp_path: Path, tint: tuple[float, ...]) -> None:
    pixels = (film(8)[..., None] * np.array(tint)).astype(np.uint8)
    assert _decided(tmp_path, _reading(tmp_path / "a.png", pixels), "xray").modality is Modality.XRAY


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_an_adapter_that_leaves_colours_out_says_that_there_were_some(tmp_path: Path, name: str) -> None:
    assert _reading(tmp_path / name, dermoscopy(), Modality.XRAY).coloured
    assert not _reading(tmp_path / name, np.repeat(film(8)[..., None], 3, -1), Modality.XRAY).coloured
    assert not _reading(tmp_path / name, dermoscopy(), Modality.DERMATOLOGY).coloured


def _photograph(path: Path) -> Path:
    return write_dicom(path, dermoscopy(), SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)


@pytest.mark.parametrize("named", [None, "xray"])
def test_a_photograph_is_no_film_whatever_its_header_or_the_option_says(
    pack: Path, tmp_path: Path, named: str | None
) -> None:
    inputs = tmp_path / "in"
    _photograph(inputs / "header.dcm")
    if named is not None:
        write_image(inputs / "option.jpg", dermoscopy(1))
    run = score(inputs, tmp_path / "out", model=pack, workers=1, modality=named)
    rows = run.files.to_pylist()
    assert [row["status"] for row in rows] == ["skipped"] * (1 if named is None else 2)
    assert {row["reason"] for row in rows} == {str(Reason.MODALITY_UNCERTAIN)}
    whose = ["The header says X-ray", "--modality says X-ray"]
    assert [row["message"].partition(", but the image is in colour")[0] for row in rows] == whose[: len(rows)]


def test_a_row_of_a_table_is_believed_about_its_file(pack: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a.jpg", dermoscopy())
    (tmp_path / "table.csv").write_text("file,modality\na.jpg,xray\n")
    table = tmp_path / "table.csv"
    assert score(tmp_path / "in", tmp_path / "out", model=pack, workers=1, table=table).counts["scored"] == 1


def test_embeddings_leave_a_photograph_out_as_a_run_does(pack: Path, tmp_path: Path) -> None:
    _photograph(tmp_path / "in" / "photograph.dcm")
    write_dicom(tmp_path / "in" / "film.dcm", film(8))
    stored = embed(tmp_path / "in", tmp_path / "e", model=pack, workers=1)
    assert stored.units.num_rows == 1
    score(stored, tmp_path / "v", model=pack)
    score(tmp_path / "in", tmp_path / "f", model=pack, workers=1)
    assert digests(tmp_path / "v") == digests(tmp_path / "f")
