"""`medclip models merge`: what it prints, what a script reads, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medclip.cli.main import main
from medclip.models.packs.card import read_card
from tests.kits.merging import Family, make_family


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return make_family(tmp_path_factory.mktemp("family"), 2)


def test_a_soup_is_written_and_said_to_be_unmeasured(
    family: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packs = [str(pack) for pack in family.children]
    assert main(["models", "merge", *packs, "--out", str(tmp_path / "m")]) == 0
    printed = capsys.readouterr().out
    assert "Nothing was measured after merging" in printed
    assert "of child0 0, child1 0" in printed


def test_a_script_reads_what_a_greedy_soup_took_and_what_was_measured(
    family: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packs = [str(pack) for pack in family.children]
    more = ["--method", "greedy-soup", "--shards", str(family.shards), "--num-resamples", "20"]
    assert main(["models", "merge", *packs, *more, "--out", str(tmp_path / "m"), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["method"] == "greedy-soup"
    assert len(values["tried"]) == 1
    assert values["held_out"]["num_images"] == 16
    assert main(["models", "merge", *packs, *more, "--out", str(tmp_path / "again")]) == 0
    printed = capsys.readouterr().out
    assert "soup with it" in printed
    assert "chest_xray_findings" in printed


def test_a_learned_soup_learns_shares_on_held_out_images_and_writes_them_on_the_card(
    family: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packs = [str(pack) for pack in family.children]
    more = ["--method", "learned-soup", "--shards", str(family.shards), "--num-resamples", "20"]
    assert main(["models", "merge", *packs, *more, "--out", str(tmp_path / "m"), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert list(values["shares"]) == ["child0 0", "child1 0"]
    assert sum(values["shares"].values()) == pytest.approx(1)
    assert values["shares"]["child0 0"] != pytest.approx(0.5, abs=1e-4)
    assert values["held_out"]["num_images"] == 16
    assert any("chance decides" in note for note in values["notes"])
    facts = read_card(tmp_path / "m").created_from
    assert facts["method"] == "learned-soup"
    assert len(facts["losses"]) == 5
    assert main(["models", "merge", *packs, "--method", "learned-soup", "--out", str(tmp_path / "n")]) == 2
    assert "is chosen on held-out data" in capsys.readouterr().err


def test_packs_that_cannot_be_merged_end_with_two(
    family: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packs = [str(family.children[0]), str(family.stranger)]
    assert main(["models", "merge", *packs, "--out", str(tmp_path / "m")]) == 2
    assert "did not begin with the weights" in capsys.readouterr().err
