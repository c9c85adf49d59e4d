from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medclip.auditing.thresholds.choose import Policy, choose_all, read_thresholds, thresholds_for, write_thresholds
from medclip.errors import MedclipError, Reason
from tests.kits.shortcuts import chests


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "thresholds.json"
    write_thresholds(path, choose_all(chests(0), Policy("youden"), "validation 2024")[0].values())
    return path


def changed(path: Path, **change: Any) -> Path:
    content = json.loads(path.read_text())
    content["thresholds"][0] |= change
    path.write_text(json.dumps(content))
    return path


def test_what_is_written_is_read_again_and_says_what_it_was_chosen_on(file: Path) -> None:
    chosen = choose_all(chests(0), Policy("youden"), "validation 2024")[0]
    assert read_thresholds(file) == chosen
    before = file.read_bytes()
    write_thresholds(file, chosen.values())
    assert file.read_bytes() == before
    assert "validation 2024" in before.decode()
    assert chests(0).identities[0] not in before.decode()


def test_it_serves_other_patients_and_is_refused_on_its_own(file: Path) -> None:
    thresholds = read_thresholds(file)
    used, notes = thresholds_for(thresholds, chests(1), file)
    assert list(used) == ["Pneumothorax"]
    assert "whether some patients are in both is not known" in notes[0]
    with pytest.raises(MedclipError, match="chosen on the same rows") as caught:
        thresholds_for(thresholds, chests(0), file)
    assert caught.value.reason is Reason.PATIENT_OVERLAP
    assert thresholds_for({}, chests(1))[1] == (
        "No threshold for Pneumothorax: the file of thresholds does not name it.",
    )


def test_a_fixed_threshold_from_a_file_serves_any_data(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    write_thresholds(path, choose_all(chests(0), Policy.parse("fixed=0.123456789"), "")[0].values())
    used, notes = thresholds_for(read_thresholds(path), chests(0), path)
    assert (used["Pneumothorax"].value, notes) == (0.123456789, ())


def test_a_threshold_outside_0_to_1_is_refused_for_probabilities(file: Path) -> None:
    with pytest.raises(MedclipError, match="probabilities"):
        thresholds_for(read_thresholds(changed(file, value=1.5)), chests(1), file)


@pytest.mark.parametrize(
    "change",
    [
        {"value": None},
        {"value": "0.5"},
        {"policy": "best"},
        {"policy": "fixed=0.2"},
        {"n": -1},
        {"n_pos": 0},
        {"n_patients": 10**9},
        {"data_sha256": "abc"},
        {"data_sha256": ""},
        {"date": "2024"},
        {"label": ""},
    ],
)
def test_a_damaged_file_is_one_sentence(file: Path, change: dict[str, Any]) -> None:
    with pytest.raises(MedclipError, match="no file of thresholds, or it is damaged") as caught:
        read_thresholds(changed(file, **change))
    assert caught.value.reason is Reason.TABLE_INVALID
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 2, "thresholds": []}', b"\xff\xfe", b"NaN"])
def test_what_is_something_else_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(MedclipError, match="no file of thresholds") as caught:
        read_thresholds(path)
    assert "\n" not in str(caught.value)


def test_a_label_that_is_in_it_twice_is_refused(file: Path) -> None:
    content = json.loads(file.read_text())
    content["thresholds"] *= 2
    file.write_text(json.dumps(content))
    with pytest.raises(MedclipError, match="twice"):
        read_thresholds(file)


def test_a_file_that_is_not_there_or_is_a_folder_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(MedclipError, match="no such file"):
        read_thresholds(tmp_path / "none.json")
    with pytest.raises(MedclipError, match="cannot be read"):
        read_thresholds(tmp_path)
    with pytest.raises(MedclipError, match="cannot be written"):
        write_thresholds(tmp_path, [])
