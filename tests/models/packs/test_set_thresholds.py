"""A copy of a pack has thresholds on its card; scores are the same, and decisions are made where there were none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medclip.api.models import set_thresholds
from medclip.api.score import score
from medclip.auditing.thresholds.choose import Threshold, write_thresholds
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.models.packs.card import read_card
from medclip.models.packs.manifest import pack_digest
from tests.kits.results import in_folder
from tests.kits.scoring import make_pack, write_dicom

TASK = "chest_xray_findings"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack whose card has tasks."""
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny")


def known(label: str, value: float) -> Threshold:
    return Threshold(label, value, "sensitivity=0.9", "site A", 80, 9, 70, "a" * 64, "b" * 64)


def test_thresholds_of_an_audit_are_on_the_card_of_a_copy_with_where_they_come_from(pack: Path, tmp_path: Path) -> None:
    write_thresholds(tmp_path / "thresholds.json", [known("pneumonia", 0.25), known("of another task", 0.5)])
    info = set_thresholds(pack, tmp_path / "thresholds.json", task=TASK, out=tmp_path / "new")
    thresholds = read_card(info.path).tasks[TASK].thresholds
    assert set(thresholds) == {"pneumonia"}
    assert thresholds["pneumonia"].in_words() == "threshold 0.25 of the model card, chosen by sensitivity=0.9 on site A"
    assert (thresholds["pneumonia"].n_pos, thresholds["pneumonia"].data_sha256) == (9, "a" * 64)
    assert pack_digest(info.path) != pack_digest(pack)
    assert read_card(pack).tasks[TASK].thresholds == {}


def test_scores_are_as_before_and_results_decide_by_the_threshold(pack: Path, tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    calls: dict[str, Any] = {"modality": "xray", "workers": 1}
    before = score(tmp_path / "in", tmp_path / "a", model=pack, export=in_folder(tmp_path / "ra", "fhir-r5"), **calls)
    set_thresholds(pack, {"pneumonia": 0.0, "effusion": 1.0}, task=TASK, out=tmp_path / "new")
    export = in_folder(tmp_path / "rb", "fhir-r5")
    after = score(tmp_path / "in", tmp_path / "b", model=tmp_path / "new", export=export, **calls)
    assert after.scores["probability"] == before.scores["probability"]

    def decisions(folder: Path) -> list[str]:
        (file,) = (folder / "fhir-r5").iterdir()
        entries = [entry["resource"] for entry in json.loads(file.read_text())["entry"]]
        return [o["interpretation"][0]["coding"][0]["code"] for o in entries if "interpretation" in o]

    assert decisions(tmp_path / "ra") == []
    assert sorted(decisions(tmp_path / "rb")) == ["NEG", "POS"]


def test_the_command_writes_the_pack_and_says_what_it_decides_by(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_thresholds(tmp_path / "thresholds.json", [known("pneumonia", 0.25)])
    arguments = ["models", "set-thresholds", str(pack), str(tmp_path / "thresholds.json"), "--task", TASK]
    assert main([*arguments, "--out", str(tmp_path / "new")]) == 0
    assert "pneumonia: threshold 0.25" in capsys.readouterr().out
    assert main([*arguments, "--out", str(tmp_path / "other"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["thresholds"] == {"pneumonia": 0.25}
    assert main([*arguments, "--out", str(tmp_path / "new")]) == 2


@pytest.mark.parametrize(
    ("thresholds", "task", "reason", "words"),
    [
        ({"pneumonia": 0.5}, "nonsense", Reason.WRONG_USE, "no task 'nonsense'"),
        ({"nonsense": 0.5}, TASK, Reason.WRONG_USE, "no class 'nonsense'"),
        ({"pneumonia": 1.5}, TASK, Reason.TABLE_INVALID, "not valid"),
        ({"pneumonia": {"value": 0.5, "colour": "red"}}, TASK, Reason.TABLE_INVALID, "colour"),
        ({}, TASK, Reason.WRONG_USE, "no threshold of a class"),
        ("missing.json", TASK, Reason.MISSING_FILE, "no such file"),
        ("broken.json", TASK, Reason.TABLE_INVALID, "no file of thresholds"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thresholds: Any, task: str, reason: Reason, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text("[" * 100)
    with pytest.raises(MedclipError, match=words) as refused:
        set_thresholds(pack, thresholds, task=task, out="new")
    assert refused.value.reason is reason
    assert not Path("new").exists()
