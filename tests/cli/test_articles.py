"""`medclip pairs from-articles` says what became of figures, in words and as JSON, and what it refuses."""

from __future__ import annotations

import json

from medclip.cli.main import main
from tests.kits.articles import write_many


def test_the_command_says_how_many_figures_of_how_many_packages(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("MEDCLIP_HOME", str(tmp_path / "home"))
    place = str(write_many(tmp_path / "in", 2, license_=""))
    words = ["pairs", "from-articles", place, "--out", str(tmp_path / "out"), "--workers", "1", "--splits", "train=1"]
    assert main(words) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "4 figures from 2 of 2 packages." in out
    assert "2 articles without a licence, counted as other." in out
    assert main(words) == 2, "shards are there already"
    capsys.readouterr()
    assert main([*words[:4], str(tmp_path / "json"), *words[5:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts_by_license_class"] == {"other": 4}
    assert main([*words[:4], str(tmp_path / "none"), *words[5:], "--license", "free"]) == 2
