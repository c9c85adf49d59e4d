"""Files of an object store are scored as those of a folder: the same tables, within a bounded spool."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from medclip.api.embed import embed
from medclip.api.run_arguments import local_of
from medclip.api.score import score
from medclip.errors import MedclipError, Reason
from medclip.files import stores
from medclip.files.discover import walk
from medclip.files.store_files import StoreFiles, is_store
from medclip.files.stores import RemotePath
from medclip.settings import Settings
from tests.kits.scoring import digests, pack, small_folder, studies, write_png
from tests.kits.stores import upload

__all__ = ["pack", "studies"]
ASKED: dict[str, Any] = {"min_confidence": 0.0, "workers": 1}


@pytest.fixture
def memory() -> Iterator[Any]:
    """A store in memory, empty before and after."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    yield store
    store.store.clear()


def _put(store: Any, folder: Path, under: str) -> str:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.pipe_file(f"/{under}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return f"memory://{under}"


def test_files_of_a_store_are_listed_in_the_order_of_a_folder(memory: Any, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("b/2.png", "b/10.png", "a/x/1.png", "a/y.png", "z.png", "ä.png", "a.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12345")
    files = StoreFiles(RemotePath(_put(memory, folder, "films")), tmp_path / "out")
    refs = list(files.refs(lambda prefix: []))
    local = list(walk(folder))
    assert [(ref.name, ref.size_bytes, ref.place) for ref in refs] == [
        (ref.name, ref.size_bytes, ref.place) for ref in local
    ]


def test_keys_that_are_no_path_have_their_row_and_are_never_fetched(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = StoreFiles(RemotePath("memory://films"), tmp_path / "out")
    listed = {
        "memory://films": [
            ("..", False, 3),
            ("", False, 3),
            ("x" * 300, False, 3),
            (".", True, 0),
            ("ok.png", False, 3),
        ]
    }
    monkeypatch.setattr("medclip.files.store_files.store_entries", lambda place: listed.get(place.url, []))
    refs = list(files.refs(lambda prefix: []))
    assert [ref.name for ref in refs if ref.problem is None] == ["ok.png"]
    assert {ref.problem.reason for ref in refs if ref.problem is not None} == {Reason.NOT_A_FILE}
    assert all(ref.path.resolve().is_relative_to(tmp_path / "out" / "spool") for ref in refs)


def test_a_run_over_a_store_with_keys_that_no_disk_has_ends_with_a_row_for_each(
    memory: Any, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = _put(memory, small_folder(tmp_path / "in"), "films")
    honest = stores.entries_in
    strange = [
        ("..", True, 0),
        ("", False, 3),
        ("x" * 300, False, 3),
        ("nul\0", False, 3),
        ("a", False, 3),
        ("b", False, 0),
    ]

    def entries(place: RemotePath, **how: Any) -> list[tuple[str | None, bool, int]]:
        listed = honest(place, **how)
        return [*listed, *strange] if place.url == url else listed

    monkeypatch.setattr("medclip.files.store_files.store_entries", entries)
    (tmp_path / "precious").write_text("stays")
    run = score(url, tmp_path / "out", model=pack, **ASKED)
    rows = dict(zip(run.files.column("path").to_pylist(), run.files.column("reason").to_pylist(), strict=True))
    refused = {name for name, reason in rows.items() if reason == Reason.NOT_A_FILE}
    assert len(refused) == 5
    assert "a" in refused
    assert "b" not in rows
    assert rows["a/1.dcm"] is None
    assert rows["b/scan"] is None
    assert (tmp_path / "precious").exists()


def test_the_spool_holds_what_is_fetched_and_nothing_once_it_is_released(memory: Any, tmp_path: Path) -> None:
    url = _put(memory, small_folder(tmp_path / "in"), "films")
    with StoreFiles(RemotePath(url), tmp_path / "out", limit_bytes=1000) as files:
        files.list_all(b"")
        names = [ref.name for ref in files.refs(lambda prefix: [])]
        memory.rm("/films/notes.txt")
        problems = files.fetch(names)
        assert {name: problem.reason for name, problem in problems.items()} == {"notes.txt": Reason.MISSING_FILE}
        assert files.is_full
        assert (files.folder / "a/1.dcm").read_bytes() == (tmp_path / "in/a/1.dcm").read_bytes()
        assert os.stat(files.folder / "a/1.dcm").st_mode & 0o077 == 0
        files.release(names)
        assert not files.is_full
        assert [path for path in files.folder.rglob("*") if path.is_file()] == [files.witness]
    assert not files.folder.exists()


def test_a_run_over_a_store_writes_the_tables_of_a_run_over_the_folder(
    memory: Any, studies: Path, pack: Path, tmp_path: Path
) -> None:
    score(studies, tmp_path / "here", model=pack, **ASKED)
    url = _put(memory, studies, "films")
    run = score(url, tmp_path / "there", model=pack, **ASKED)
    assert run.counts["scored"] > 0
    assert digests(tmp_path / "there") == digests(tmp_path / "here")
    assert not (tmp_path / "there" / "spool").exists()
    assert score(url, tmp_path / "there", model=pack, **ASKED).already_finished
    with pytest.raises(MedclipError, match="this folder holds"):
        score("memory://films/a", tmp_path / "there", model=pack, **ASKED)


def test_a_run_over_a_store_goes_on_where_it_was_stopped_and_in_shards(
    memory: Any, studies: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import medclip
    from medclip.runs.planning import listing

    monkeypatch.setattr(listing, "WINDOW_FILES", 3)
    score(studies, tmp_path / "here", model=pack, **ASKED)
    url = _put(memory, studies, "films")
    score(url, tmp_path / "there", model=pack, limit=3, **ASKED)
    assert not score(url, tmp_path / "there", model=pack, **ASKED).already_finished
    assert digests(tmp_path / "there") == digests(tmp_path / "here")
    for number in (1, 2):
        settings = Settings(spool_bytes=number * 10**9)
        score(url, tmp_path / f"{number}", model=pack, shard=f"{number}/2", settings=settings, **ASKED)
    medclip.runs.merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all", workers=1)
    assert digests(tmp_path / "all") == digests(tmp_path / "here")


def test_a_run_whose_spool_is_full_reads_nothing_ahead_and_ends_in_the_same_bytes(
    memory: Any, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medclip.runs.planning import listing, look, plan

    monkeypatch.setattr(listing, "WINDOW_FILES", 2)
    monkeypatch.setattr(look, "WINDOW_FILES", 2)
    monkeypatch.setattr(plan, "CHUNK_FILES", 1)
    for n in range(30):
        write_png(tmp_path / "in" / f"{n:02}" / "film.png", n)
    url = _put(memory, tmp_path / "in", "films")
    largest = max(path.stat().st_size for path in (tmp_path / "in").rglob("*.png"))
    spools: list[StoreFiles] = []
    honest = StoreFiles.__enter__
    monkeypatch.setattr(StoreFiles, "__enter__", lambda self: spools.append(self) or honest(self))
    for spool, name in ((1, "small"), (10**9, "large")):
        score(url, tmp_path / name, model=pack, settings=Settings(spool_bytes=spool), **ASKED)
    small, large = (spool.peak_bytes for spool in spools)
    assert small <= 3 * 2 * largest, "three windows of two files: looked at, scored, and being released"
    assert large > 3 * 2 * largest, "with room, more is read ahead"
    assert digests(tmp_path / "small") == digests(tmp_path / "large")


def test_one_object_is_scored_as_one_file(memory: Any, pack: Path, tmp_path: Path) -> None:
    path = write_png(tmp_path / "film.png", 3)
    memory.pipe_file("/films/film.png", path.read_bytes())
    run = score("memory://films/film.png", tmp_path / "out", model=pack, modality="xray", **ASKED)
    assert run.files.column("path").to_pylist() == ["film.png"]
    assert run.counts["scored"] == 1


def test_a_local_url_is_a_path(studies: Path, pack: Path, tmp_path: Path) -> None:
    run = score(f"file://{studies}", tmp_path / "out", model=pack, **ASKED)
    assert run.counts["files"] == score(studies, tmp_path / "same", model=pack, **ASKED).counts["files"]


def test_a_local_url_is_read_as_it_is_written_and_as_a_path_shortens_it() -> None:
    urls = ("file:///data/my%20films", Path("file:///data/my%20films"), "file:/data/my%20films")
    assert {local_of(url) for url in urls} == {Path("/data/my films")}
    assert local_of("films") == "films"


def test_what_is_no_store_is_none() -> None:
    assert is_store("s3://bucket/films")
    assert is_store(Path("s3://bucket/films"))
    assert not any(map(is_store, ("films", Path("films"), "dicomweb://host/x", "file:///films", 3, ["s3://bucket"])))


def test_a_store_without_files_and_a_web_server_are_refused(memory: Any, pack: Path, tmp_path: Path) -> None:
    with pytest.raises(MedclipError) as error:
        score("memory://nothing", tmp_path / "out", model=pack, **ASKED)
    assert error.value.reason is Reason.NOTHING_TO_DO
    assert not (tmp_path / "out").exists()
    with pytest.raises(MedclipError, match="a web server has no list of its files"):
        score("http://127.0.0.1:1/films", tmp_path / "out", model=pack, **ASKED)
    with pytest.raises(MedclipError, match="the URL holds a user"):
        score("s3://key:secret@bucket/films", tmp_path / "out", model=pack, **ASKED)


@pytest.mark.parametrize(
    "wrong", [{"report": {"explain": "top"}}, {"export": "sr=results"}, {"engine": "ray"}, {"query": "A=1"}]
)
def test_what_needs_files_that_stay_is_refused(wrong: dict[str, Any], pack: Path, tmp_path: Path) -> None:
    with pytest.raises(MedclipError) as error:
        score("memory://films", tmp_path / "out", model=pack, **ASKED, **wrong)
    assert error.value.reason is Reason.WRONG_USE


def test_a_store_that_is_away_stops_the_run_and_one_object_that_does_not_come_is_one_row(
    memory: Any, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "RETRY_PAUSES_S", (0.0,))
    url = _put(memory, studies, "films")
    with StoreFiles(RemotePath(url), tmp_path / "out") as files:
        with monkeypatch.context() as patched:
            patched.setattr(type(memory), "cat_file", _fail)
            assert files.fetch(["whole.png"])["whole.png"].reason is Reason.READ_ERROR
        with monkeypatch.context() as patched:
            for name in ("cat_file", "ls", "info"):
                patched.setattr(type(memory), name, _fail)
            with pytest.raises(MedclipError) as error:
                files.fetch(["whole.png"])
            assert error.value.reason is Reason.UNREACHABLE
        assert not files.fetch(["whole.png"])


def _fail(*_: Any, **__: Any) -> Any:
    raise OSError("the line is dead")


@pytest.mark.slow
@pytest.mark.allow_hosts(["127.0.0.1"])
def test_a_bucket_of_s3_is_scored_as_the_folder_is(s3: str, studies: Path, pack: Path, tmp_path: Path) -> None:
    score(studies, tmp_path / "here", model=pack, **ASKED)
    url = upload(studies, "films", s3)
    score(url, tmp_path / "there", model=pack, **ASKED)
    assert digests(tmp_path / "there") == digests(tmp_path / "here")
    with pytest.raises(MedclipError):
        score("s3://no-such-bucket/films", tmp_path / "none", model=pack, **ASKED)


@pytest.mark.parametrize("verb", [score, embed])
def test_a_dry_run_counts_objects_and_bytes_and_fetches_none(
    verb: Any, memory: Any, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_folder(tmp_path / "in")
    url = _put(memory, folder, "films")
    monkeypatch.setattr(stores, "read_range", lambda *_: pytest.fail("something was fetched"))
    seen = verb(url, tmp_path / "out", model=pack, workers=1, dry_run=True)
    refs = list(walk(folder))
    assert seen.planned["listed"]["num_files"] == seen.counts["files"] == len(refs)
    assert seen.planned["listed"]["num_bytes"] == sum(ref.size_bytes for ref in refs)
    assert (seen.exit_code, seen.files.num_rows, seen.planned["done_before"]) == (0, 0, 0)
    assert not (tmp_path / "out").exists()
