"""A new question to old vectors: equal, byte for byte, to the same question to the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from medclip.api.embed import embed
from medclip.api.score import score
from medclip.models.model import Model
from medclip.models.packs.pack import load_model
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
    table = "file,study,patient,modality\n" + "".join(f"png/{n}.png,S,P,\n" for n in range(4))
    (root.parent / "table.csv").write_text(table)
    return root


QUESTIONS: dict[str, dict[str, Any]] = {
    "the card's tasks": {},
    "a prompt": {"prompt": ["a pacemaker", "pneumonia"], "against": ["no device", "clear lungs"]},
    "one task": {"task": ["breast_density"]},
    "tasks and a prompt": {"task": ["chest_xray_view", "brain_mri_tumour"], "prompt": "a bright blob"},
    "a task about chests": {"task": "chest_xray_findings", "sort_by": "chest_xray_findings:effusion"},
}


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
    in_memory = score(stored, model=loaded, **{k: v for k, v in asked.items() if k != "sort_by"})
    assert in_memory.files.equals(whole.files)
    assert in_memory.scores.equals(whole.scores)
    assert in_memory.counts == whole.counts
    assert score(stored, tmp_path / "vectors", model=pack, **asked).already_finished
