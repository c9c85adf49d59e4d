"""An audit is run again from its audit.json: the same bytes, or a refusal with both hashes."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import medclip
from medclip.errors import MedclipError, Reason
from tests.kits.audit_tables import audit_table

QUICK: dict[str, Any] = {"num_resamples": 100, "num_permutations": 100, "by": ["sex"]}
_LOCAL = "run.json"
"""The note of the folder: it knows where the inputs lie, and nothing else of it is signed."""


@pytest.fixture
def audited(tmp_path: Path) -> Path:
    """An audit of two files beside it, of another day."""
    table = audit_table(150)
    table[["image", "flu_score"]].rename(columns={"flu_score": "flu"}).to_csv(tmp_path / "net.csv", index=False)
    table.drop(columns="flu_score").to_csv(tmp_path / "labels.csv", index=False)
    about = {"auditor": "J. Doe", "question": "May it read at night?", "audited_on": "2026-01-02"}
    medclip.audit(tmp_path / "net.csv", tmp_path / "labels.csv", out=tmp_path / "audit", as_="claim", **about, **QUICK)
    return tmp_path / "audit"


def differing(one: Path, other: Path) -> set[str]:
    names = {p.name for folder in (one, other) for p in folder.iterdir()}
    return {name for name in names if (one / name).read_bytes() != (other / name).read_bytes()} - {_LOCAL}


def test_the_same_inputs_give_the_same_bytes_also_from_another_folder(audited: Path, tmp_path: Path):
    medclip.audit(audited / "audit.json", out=tmp_path / "deep" / "again")
    assert differing(audited, tmp_path / "deep" / "again") == set()
    about = json.loads((tmp_path / "deep" / "again" / "audit.json").read_text())["provenance"]
    assert (about["date"], about["auditor"]) == ("2026-01-02", "J. Doe")
    assert about["command"].startswith("medclip audit net.csv --labels labels.csv --by sex --num-resamples 100")


def test_no_file_of_an_audit_holds_the_path_of_its_inputs(audited: Path, tmp_path: Path):
    for file in audited.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name


def test_an_input_that_changed_is_refused_with_both_hashes_unless_it_may_differ(audited: Path, tmp_path: Path):
    before = hashlib.sha256((tmp_path / "labels.csv").read_bytes()).hexdigest()
    text = (tmp_path / "labels.csv").read_text()
    (tmp_path / "labels.csv").write_text(text.replace(",F,", ",M,", 40))
    now = hashlib.sha256((tmp_path / "labels.csv").read_bytes()).hexdigest()
    with pytest.raises(MedclipError, match=f"then {before}, now {now}") as refused:
        medclip.audit(audited / "audit.json", out=tmp_path / "again")
    assert refused.value.reason is Reason.CHANGED
    result = medclip.audit(audited / "audit.json", out=tmp_path / "again", changed_inputs=True)
    assert result.provenance["date"] != "2026-01-02"  # another audit, of today
    assert result.provenance["inputs"][1]["sha256"] == now


def test_inputs_are_found_by_name_where_the_folder_moved_and_missed_where_they_are_gone(
    audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    shutil.move(audited, tmp_path / "elsewhere" / "moved")
    medclip.audit("elsewhere/moved/audit.json", out="again")
    assert differing(tmp_path / "elsewhere" / "moved", tmp_path / "again") == set()
    (tmp_path / "net.csv").unlink()
    with pytest.raises(MedclipError, match=r"'net\.csv' of this audit is not beside it any more"):
        medclip.audit("elsewhere/moved/audit.json", out="more")


def test_an_option_beside_it_makes_it_another_audit_of_today(audited: Path, tmp_path: Path):
    result = medclip.audit(audited / "audit.json", out=tmp_path / "again", seed=3)
    assert result.provenance["date"] != "2026-01-02"
    assert result.provenance["recipe"]["seed"] == 3


def test_an_audit_of_data_frames_cannot_be_run_again(tmp_path: Path):
    medclip.audit(audit_table(60), out=tmp_path / "audit", **QUICK)
    with pytest.raises(MedclipError, match="cannot be run again from here"):
        medclip.audit(tmp_path / "audit" / "audit.json", out=tmp_path / "again")


def test_a_recipe_that_was_declared_beforehand_stands_on_the_page_with_its_hash_and_what_was_changed(
    audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "plan.yaml"
    recipe.write_text(
        "scores: net.csv\nlabels: labels.csv\nby: sex\nnum_resamples: 100\nnum_permutations: 100\n"
        "declared: {date: 2026-01-01, by: The board}\n"
    )
    medclip.audit(recipe, out=tmp_path / "planned")
    digest = hashlib.sha256(recipe.read_bytes()).hexdigest()
    page = (tmp_path / "planned" / "report.html").read_text()
    assert f"plan.yaml, declared on 2026-01-01, by The board; SHA-256 {digest}" in page
    recipe.unlink()
    medclip.audit(tmp_path / "planned" / "audit.json", out=tmp_path / "again")
    assert differing(tmp_path / "planned", tmp_path / "again") == set()
    recipe.write_text("scores: net.csv\nlabels: labels.csv\nby: sex\ndeclared: {date: 2026-01-01, who: me}\n")
    with pytest.raises(MedclipError, match="declared has a date and a name"):
        medclip.audit(recipe, out=tmp_path / "no")


def test_what_the_command_line_changes_of_a_declared_recipe_is_told(audited: Path, tmp_path: Path):
    recipe = tmp_path / "plan.yaml"
    recipe.write_text(f"scores: {tmp_path / 'net.csv'}\nlabels: {tmp_path / 'labels.csv'}\nby: sex\nseed: 3\n")
    asked = {"seed": 4, "num_resamples": 100, "num_permutations": 100, "by": ["sex"], "auditor": "J. Doe"}
    result = medclip.audit(recipe=recipe, out=tmp_path / "x", **asked)
    assert result.provenance["recipe_file"]["overridden"] == ["num_permutations", "num_resamples", "seed"]


def test_an_audit_of_an_earlier_version_is_run_again_with_its_options_as_they_are_called_now(
    audited: Path, tmp_path: Path
):
    path = audited / "audit.json"
    written = json.loads(path.read_text())
    recipe = written["provenance"]["recipe"]
    written["provenance"]["recipe"] = {"permutations" if k == "num_permutations" else k: v for k, v in recipe.items()}
    path.write_text(json.dumps(written))
    again = medclip.audit(path, out=tmp_path / "again")
    assert again.provenance["recipe"] == recipe
    assert differing(audited, tmp_path / "again") == {"audit.json"}
