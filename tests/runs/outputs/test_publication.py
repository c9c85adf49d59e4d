"""A run that is published in a store: the bytes of the folder, run.json the last, one run for one place."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from medclip.api.embed import embed
from medclip.api.runs import retry
from medclip.api.score import score
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.files import stores
from medclip.runs.outputs import publication, results
from medclip.runs.outputs.publication import MARKER
from medclip.runs.outputs.results import RUN, output_files
from tests.kits.kills import run_anew
from tests.kits.loaded_python import Programs
from tests.kits.scoring import pack, small_folder, studies, write_png
from tests.kits.stores import memory_store as store

__all__ = ["pack", "store", "studies"]
ASKED: dict[str, Any] = {"min_confidence": 0.0, "workers": 1}
OUT = "memory://results/night"


def objects(store: Any, under: str = "/results/night/") -> dict[str, bytes]:
    """Return what lies in the folder of the store, without the marker."""
    found = {name.removeprefix(under): bytes(file.getvalue()) for name, file in store.store.items()}
    return {name: content for name, content in found.items() if name != MARKER and not name.startswith("/")}


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in output_files(folder)}


@pytest.mark.parametrize("verb", [score, embed])
def test_a_store_gets_the_bytes_of_a_folder_and_no_ledger(verb: Any, store: Any, pack: Path, tmp_path: Path) -> None:
    root = small_folder(tmp_path / "in")
    run = verb(root, OUT, work=tmp_path / "work", model=pack, **ASKED)
    local = verb(root, tmp_path / "out", model=pack, **ASKED)
    assert objects(store) == outputs(tmp_path / "out") == outputs(tmp_path / "work")
    assert {RUN, "files.parquet"} < objects(store).keys()
    assert (run.published, run.folder, local.published) == (OUT, tmp_path / "work", None)
    assert OUT in repr(run)


def test_a_question_to_embeddings_is_published_too(store: Any, pack: Path, tmp_path: Path) -> None:
    vectors = embed(small_folder(tmp_path / "in"), tmp_path / "vectors", model=pack, **ASKED)
    score(vectors, OUT, work=tmp_path / "work", model=pack, prompt="a fracture")
    assert objects(store) == outputs(tmp_path / "work")
    assert "report.html" in objects(store)


def test_what_stops_in_the_middle_has_no_run_json_and_goes_on_with_what_lacks(
    store: Any, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = small_folder(tmp_path / "in")
    written: list[str] = []
    honest = stores.write_object

    def breaks(place: Any, content: Any) -> None:
        if place.name == "scores.parquet" and "scores.parquet" not in written:
            written.append(place.name)
            raise MedclipError(Reason.UNREACHABLE, "the store is away.")
        written.append(place.name)
        honest(place, content)

    monkeypatch.setattr(publication, "write_object", breaks)
    monkeypatch.setattr(publication, "_CONNECTIONS", 1)
    with pytest.raises(MedclipError, match="is away"):
        score(root, OUT, work=tmp_path / "work", model=pack, **ASKED)
    assert RUN not in objects(store)
    first, written[:] = set(written), ["scores.parquet"]
    again = score(root, OUT, work=tmp_path / "work", model=pack, **ASKED)
    assert again.already_finished
    assert objects(store) == outputs(tmp_path / "work")
    assert written[-1] == RUN
    assert "files.parquet" in first - set(written), "what was there is not written again"
    written.clear()
    score(root, OUT, work=tmp_path / "work", model=pack, **ASKED)
    assert not written


def test_files_that_came_later_change_the_store_and_what_is_no_more_goes(
    store: Any, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = small_folder(tmp_path / "in")
    score(root, OUT, work=tmp_path / "work", model=pack, export="csv", **ASKED)
    assert "files.csv" in objects(store)
    write_png(root / "late.png", 77)
    store.pipe_file("/results/night/notes.txt", b"of somebody else")
    order: list[str] = []

    def watched(name: str) -> Any:
        honest = getattr(stores, name)

        def call(place: Any, *content: Any) -> None:
            if "/parts/" not in place.url:  # how many there are depends on the clock
                order.append(f"{name} {place.name}")
            honest(place, *content)

        return call

    for name in ("write_object", "remove_object"):
        monkeypatch.setattr(publication, name, watched(name))
    score(root, OUT, work=tmp_path / "work", model=pack, add=True, **ASKED)
    assert order[0] == f"remove_object {RUN}"
    assert order[-1] == f"write_object {RUN}"
    left = objects(store)
    assert left.pop("notes.txt") == b"of somebody else"
    assert left == outputs(tmp_path / "work")
    assert "files.csv" not in left


def test_early_rows_are_there_while_a_run_goes_on_and_gone_at_its_end(
    store: Any, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "PART_SECONDS", 0.0)
    seen: list[set[str]] = []
    honest = publication.Publication.finish

    def finish(self: publication.Publication) -> None:
        self._end_early()
        seen.append(set(objects(store)))
        honest(self)

    monkeypatch.setattr(publication.Publication, "finish", finish)
    score(small_folder(tmp_path / "in"), OUT, work=tmp_path / "work", model=pack, **ASKED)
    assert {"parts/files-000001.parquet", "parts/scores-000001.parquet"} <= seen[0]
    assert not [name for name in objects(store) if name.startswith("parts/")]


def test_a_place_of_another_run_or_of_other_objects_is_refused_before_anything_is_read(
    store: Any, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = small_folder(tmp_path / "in")
    score(root, OUT, work=tmp_path / "work", model=pack, **ASKED)
    store.pipe_file("/results/full/notes.txt", b"of somebody else")
    before = objects(store)
    monkeypatch.setattr("medclip.runs.planning.look.inspect", lambda *_: pytest.fail("a file was read"))
    for place, work, words in (
        (OUT, "other", "holds another run"),
        ("memory://results/full", "third", "holds other objects"),
    ):
        with pytest.raises(MedclipError, match=words) as refused:
            score(root, place, work=tmp_path / work, model=pack, **ASKED)
        assert refused.value.reason is Reason.OUTPUT_IN_USE
    assert objects(store) == before


def test_a_run_whose_place_was_taken_meanwhile_publishes_nothing(
    store: Any, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = publication.Publication._end_early

    def take(self: publication.Publication) -> None:
        store.pipe_file(f"/results/night/{MARKER}", json.dumps({"run": "another"}).encode())
        honest(self)

    monkeypatch.setattr(publication.Publication, "_end_early", take)
    with pytest.raises(MedclipError, match="holds another run"):
        score(small_folder(tmp_path / "in"), OUT, work=tmp_path / "work", model=pack, **ASKED)
    assert not [name for name in objects(store) if not name.startswith("parts/")]


def test_another_place_gets_the_finished_run_without_computing_it_again(store: Any, pack: Path, tmp_path: Path) -> None:
    root = small_folder(tmp_path / "in")
    score(root, OUT, work=tmp_path / "work", model=pack, **ASKED)
    moved = score(root, "memory://elsewhere", work=tmp_path / "work", model=pack, **ASKED)
    assert moved.already_finished
    assert objects(store, "/elsewhere/") == objects(store) == outputs(tmp_path / "work")


def test_files_that_are_tried_again_are_published(store: Any, pack: Path, tmp_path: Path) -> None:
    root = small_folder(tmp_path / "in")
    run = score(root, OUT, work=tmp_path / "work", model=pack, **ASKED)
    assert run.counts["failed"]
    again = retry(tmp_path / "work")
    assert again.published == OUT
    assert objects(store) == outputs(tmp_path / "work")


@pytest.mark.parametrize(
    ("out", "options", "words"),
    [
        (OUT, {}, "--work"),
        (OUT, {"work": "memory://work"}, "--work"),
        ("https://host/results", {"work": "w"}, "takes no results"),
        (OUT, {"work": "w", "shard": "1/2"}, "no tables to publish"),
        ("out", {"work": "w"}, "Leave --work out"),
        ("memory://films/results", {"work": "w"}, "be files of the run"),
        ("s3://user:word@bucket/x", {"work": "w"}, "holds a user"),
    ],
)
def test_a_call_that_cannot_be_published_is_refused_at_once(
    store: Any, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, options: Any, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    store.pipe_file("/films/1.png", b"x")
    with pytest.raises(MedclipError) as refused:
        score("memory://films", out, model=pack, **options)
    assert refused.value.reason is Reason.WRONG_USE
    assert words in f"{refused.value} {refused.value.hint}"
    assert not list(tmp_path.iterdir())


def test_the_command_names_the_place_and_other_commands_make_no_folder_called_s3(
    store: Any, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_png(tmp_path / "in" / "1.png", 1)
    command = ["score", "in", "--out", OUT, "--work", "work", "--model", str(pack), "--modality", "xray"]
    assert main(command) == 0
    assert f"Published: {OUT}" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["published"] == OUT
    assert main(["monitor", "work", "--out", "s3://bucket/page"]) == 2
    assert "a place in a store" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "work"]


_SETUP = """
from medclip.runs.planning import look
from medclip.runs.planning import listing
from medclip.runs.outputs import results
from medclip.runs.planning import plan
listing.WINDOW_FILES = look.WINDOW_FILES = 3
plan.CHUNK_FILES, results.PART_SECONDS = 2, 0.0
from medclip.api.score import score
def run(root, out, work, pack):
    score(root, out, work=work, model=pack, min_confidence=0.0, workers=1)
"""


def bucket(client: Any, prefix: str) -> dict[str, bytes]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="results", Prefix=prefix)
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    names = {key: key.removeprefix(prefix) for key in keys if not key.endswith(MARKER)}
    return {name: client.get_object(Bucket="results", Key=key)["Body"].read() for key, name in names.items()}


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.allow_hosts(["127.0.0.1"])
def test_runs_that_are_killed_end_in_the_same_objects_of_s3(
    s3: str, programs: Programs, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    def has_ended(name: str, seconds: float = 300) -> bool:
        values = (root, f"s3://results/{name}", tmp_path / name, pack)
        return run_anew(_SETUP, *values, seconds=seconds, python=programs.python)

    monkeypatch.setenv("MEDCLIP_HOME", str(tmp_path / "home"))
    client = boto3.client("s3", endpoint_url=s3, region_name="us-east-1")
    client.create_bucket(Bucket="results")
    root = small_folder(tmp_path / "in")
    began = time.monotonic()
    assert has_ended("calm")
    seconds = time.monotonic() - began
    num_kills = 0
    for part in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9):
        num_kills += not has_ended("killed", part * seconds)
        there = bucket(client, "killed/")
        assert RUN not in there or there == bucket(client, "calm/"), "run.json stands beside what is not finished"
    assert num_kills
    assert has_ended("killed")
    assert bucket(client, "killed/") == bucket(client, "calm/") == outputs(tmp_path / "calm")
    with pytest.raises(MedclipError, match="there is no such file or folder"):
        score(root, "s3://no-such-bucket/x", work=tmp_path / "none", model=pack, **ASKED)
