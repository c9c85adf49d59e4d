"""Inputs by name and hash, and nothing of where they lie."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from medclip.api.audit import AuditOptions
from medclip.auditing.provenance import change_paths, describe_inputs, paths_of, relative_place
from medclip.options import options_of
from medclip.verbs import make_options, recipe_of


def recipe(**more: object) -> dict[str, object]:
    return recipe_of(make_options(AuditOptions, {"scores": "in/net.csv", **more}), has_places=True)


def test_every_path_of_a_recipe_is_known_by_its_key(tmp_path: Path):
    pack = tmp_path / "pack"
    pack.mkdir()
    more = {"labels": "in/l.csv", "compare": ["b=other/net.csv", "c.csv"], "training": ["shards"], "model": str(pack)}
    paths = paths_of(recipe(**more, thresholds="t.json", out="out"))
    assert {key: str(path) for key, path in paths.items()} == {
        **{"scores": "in/net.csv", "labels": "in/l.csv", "compare:0": "other/net.csv", "compare:1": "c.csv"},
        **{"training:0": "shards", "model": str(pack), "thresholds": "t.json"},
    }
    assert "model" not in paths_of(recipe(model="medclip-mini"))


def test_every_key_that_holds_a_path_is_among_them():
    places = {name for name, one in options_of(AuditOptions).items() if one.is_place and not one.is_of_call}
    for name in places - {"compare", "choose_on", "training"}:
        assert change_paths(recipe(**{name: "here/x.csv"}), lambda key, path: f"<{path}>")[name] == "<here/x.csv>", name


def test_a_file_has_its_size_and_hash_and_a_folder_of_scores_those_of_its_tables(tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("scores.parquet", "files.parquet", "report.html"):
        (run / name).write_bytes(name.encode())
    rows = describe_inputs({"scores": run, "labels": run / "report.html", "key_file": run / "report.html"})
    assert [(row["for"], row["name"], row["size"]) for row in rows] == [
        ("scores", "run/scores.parquet", 14),
        ("scores", "run/files.parquet", 13),
        ("labels", "report.html", 11),
        ("key_file", "report.html", None),  # a secret is not hashed
    ]
    assert rows[2]["sha256"] == hashlib.sha256(b"report.html").hexdigest()
    alone = describe_inputs({"scores": run / "scores.parquet"})
    assert [row["name"] for row in alone] == ["scores.parquet", "files.parquet"]


@pytest.mark.parametrize(
    ("path", "folder", "place"),
    [
        ("/data/study/in/net.csv", "/data/study/out/audit", "../../in/net.csv"),
        ("/home/jane/study/net.csv", "/home/jane/study/audit", "../net.csv"),
        ("/home/jane/net.csv", "/home/john/audit", None),
        ("/data/net.csv", "/srv/audit", None),
    ],
)
def test_a_place_is_kept_where_it_tells_of_no_home_and_no_disk(
    path: str, folder: str, place: str | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", "/home/jane")
    assert relative_place(Path(path), Path(folder)) == place
