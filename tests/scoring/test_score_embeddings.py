"""A new question to old vectors: equal, byte for byte, to the same question to the files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow.compute as pc
import pydicom
import pytest
import torch
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import RLELossless

from medclip.api.embed import embed
from medclip.api.score import score
from medclip.api.search import search
from medclip.embeddings.open_embeddings import Embeddings, open_embeddings
from medclip.models.model import Model
from medclip.models.packs.pack import load_model, update_pack
from medclip.models.prototypes.open_set import OpenSet
from medclip.scoring import stored_units
from medclip.scoring.tasks import AskedTask, Scorer
from tests.kits.scoring import STUDY_UID, digests, small_folder, write_dicom


def hospital(root: Path) -> Path:
    """Make a folder with what decides anything about a file: broken ones, copies, free text, a study of two devices."""
    small_folder(root)
    write_dicom(root / "c" / "1.dcm", 30, study_uid=f"{STUDY_UID}.5", BodyPartExamined="CHEST")
    write_dicom(root / "c" / "2.dcm", 31, study_uid=f"{STUDY_UID}.5", BodyPartExamined="PORT HAND CURIE")
    write_dicom(root / "c" / "3.dcm", 32, study_uid=f"{STUDY_UID}.5", BurnedInAnnotation="YES")
    write_dicom(root / "d" / "xray.dcm", 33, study_uid=f"{STUDY_UID}.6", modality="OT", PatientID="Curie")
    for n in range(4):
        write_dicom(root / "d" / f"{n}.dcm", 40 + n, study_uid=f"{STUDY_UID}.6", modality="OT")
    body = write_dicom(root / "e" / "1.dcm", 34, study_uid=f"{STUDY_UID}.7").read_bytes()
    (root / "e" / "1.dcm").write_bytes(body[:-3000])
    for name in ("2", "3"):
        write_dicom(root / "e" / f"{name}.dcm", 34, study_uid=f"{STUDY_UID}.7")
    data = pydicom.dcmread(root / "e" / "2.dcm")
    data.compress(RLELossless, generate_instance_uid=False)
    frame = get_frame(data.PixelData, 0, number_of_frames=1)
    data.PixelData = encapsulate([frame[: len(frame) // 4 * 2]])
    data.save_as(root / "e" / "0.dcm")  # the first by name: 2.dcm counts in its place
    table = "file,study,patient,modality\n" + "".join(f"png/{n}.png,S,P,\n" for n in range(4))
    (root.parent / "table.csv").write_text(table)
    return root


QUESTIONS: dict[str, dict[str, Any]] = {
    "the card's tasks": {},
    "a prompt": {"prompt": ["a pacemaker", "pneumonia"], "against": ["no device", "clear lungs"]},
    "one task": {"task": ["breast_density"]},
    "tasks and a prompt": {"task": ["chest_xray_view", "brain_mri_tumour"], "prompt": "a bright blob"},
    "a task about chests": {"task": "chest_xray_findings", "report": {"sort_by": "chest_xray_findings:effusion"}},
}


@pytest.fixture(scope="module", autouse=True)
def _modalities_differ() -> Iterator[None]:
    """Have images of one study inferred to be of several modalities, whatever the random weights see in them."""

    def likeliest(scorer: Scorer, features_VD: Any, question: AskedTask) -> tuple[str, float]:
        names, *_ = scorer.study(features_VD, question)
        return names[crc32(features_VD.tobytes()) % len(names)], 0.9

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scorer, "likeliest", likeliest)
        yield


@pytest.fixture(scope="module")
def made(pack: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A hospital and its embeddings."""
    base = tmp_path_factory.mktemp("made")
    root = hospital(base / "in")
    embed(root, base / "e", model=pack, workers=2, min_confidence=0.0, table=base / "table.csv")
    return root, base / "e"


@pytest.mark.parametrize("question", QUESTIONS)
def test_results_from_vectors_are_those_from_files(
    made: tuple[Path, Path], pack: Path, tmp_path: Path, question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(self: Model, texts: str | Sequence[str]) -> Any:
        assert torch.get_num_threads() == 1, "the last bits of a larger model's text depend on it"
        return encode_text(self, texts)

    loaded, encode_text = load_model(pack), Model.encode_text
    monkeypatch.setattr(Model, "encode_text", encode)
    root, stored = made
    asked = QUESTIONS[question]
    table = root.parent / "table.csv"
    whole = score(root, tmp_path / "files", model=pack, workers=2, min_confidence=0.0, table=table, **asked)
    fast = score(stored, tmp_path / "vectors", model=pack, **asked)
    assert fast.files.to_pylist() == whole.files.to_pylist()
    assert fast.scores.to_pylist() == whole.scores.to_pylist()
    assert digests(tmp_path / "vectors") == digests(tmp_path / "files")
    assert fast.counts == whole.counts
    in_memory = score(stored, model=loaded, **{k: v for k, v in asked.items() if k != "report"})
    assert in_memory.files.equals(whole.files)
    assert in_memory.scores.equals(whole.scores)
    assert in_memory.counts == whole.counts
    assert score(stored, tmp_path / "vectors", model=pack, **asked).already_finished


@pytest.mark.parametrize("question", ["the card's tasks", "tasks and a prompt"])
def test_however_few_vectors_are_held_at_once_the_results_are_the_same(
    made: tuple[Path, Path], pack: Path, tmp_path: Path, question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, asked = open_embeddings(made[1]), QUESTIONS[question]
    at_once = score(stored, tmp_path / "at_once", model=pack, **asked)
    held, take = [], Embeddings.take

    def watched(self: Embeddings, level: Any, places: Any) -> Any:
        held.append(len(places))
        return take(self, level, places)

    monkeypatch.setattr(stored_units, "_VECTOR_BYTES", 3 * 4 * stored.dim)  # three vectors
    monkeypatch.setattr(stored_units, "_FILES_AT_ONCE", 2)
    monkeypatch.setattr(Embeddings, "take", watched)
    monkeypatch.delattr(Embeddings, "vectors")
    in_blocks = score(stored, tmp_path / "in_blocks", model=pack, **asked)
    assert digests(tmp_path / "in_blocks") == digests(tmp_path / "at_once")
    assert in_blocks.counts == at_once.counts
    assert len(held) > 3
    most = max(pc.value_counts(stored.views.column("study")).field("counts").to_pylist())  # pyright: ignore
    assert max(held) <= 3 + most
    assert score(stored, model=pack, **{k: v for k, v in asked.items() if k != "report"}).scores.equals(at_once.scores)


def test_strangers_and_images_unlike_any_other_are_told_apart_as_in_a_run(pack: Path, tmp_path: Path) -> None:
    guarded = Path(shutil.copytree(pack, tmp_path / "guarded"))
    eye, nothing = np.eye(32, dtype=np.float32), np.zeros(1, np.float32)  # nothing is near enough
    OpenSet(("xray",), np.zeros((1, 32), np.float32), eye, nothing).save(guarded)
    update_pack(guarded)
    write_dicom(tmp_path / "in" / "any.dcm", 1)
    write_dicom(tmp_path / "in" / "chest.dcm", 2, study_uid=f"{STUDY_UID}.2", BodyPartExamined="CHEST")
    stored = embed(tmp_path / "in", tmp_path / "e", model=guarded, workers=1)
    assert stored.units.column("stranger").to_pylist() == [True, False]
    questions: list[dict[str, Any]]
    words = ["a pacemaker", "pneumonia"]
    questions = [{"task": "chest_xray_findings"}, {"prompt": words}, {"task": "breast_density"}]
    for n, asked in enumerate(questions):
        whole = score(tmp_path / "in", tmp_path / f"f{n}", model=guarded, workers=1, **asked)
        score(stored, tmp_path / f"v{n}", model=guarded, **asked)
        assert digests(tmp_path / f"v{n}") == digests(tmp_path / f"f{n}")
        assert whole.counts["scored"] == (1, 2, 0)[n]
    hits = {hit.study: hit.caution for hit in search(stored, "pneumonia", model=guarded).hits}
    answers = score(stored, model=guarded, prompt="pneumonia").scores.to_pylist()
    assert hits == {row["study"]: row["caution"] for row in answers}
    files = {json.loads(row["files"])[0]: row["caution"] or "" for row in answers}
    assert files["any.dcm"].startswith("Not learned: nothing states the body part")
    assert not files["chest.dcm"]


def test_a_copy_that_counts_for_a_broken_file_is_a_copy_again_where_it_is_not_asked(made: tuple[Path, Path]) -> None:
    units = open_embeddings(made[1]).units
    copies = units.filter(pc.is_valid(units.column("instead_of")))  # pyright: ignore[reportAttributeAccessIssue]
    assert copies.num_rows == 1, "or the comparison above does not see such a file"
    assert len(set(units.column("grouped").to_pylist())) < len(set(units.column("study").to_pylist()))
