from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from medclip.errors import MedclipError, Reason
from medclip.files import stores
from medclip.files.stores import (
    RemotePath,
    download,
    local_copy,
    names_in,
    place_of,
    read_range,
    read_whole,
    size_of,
)
from tests.kits.stores import WebStore, upload

LOOPBACK = pytest.mark.allow_hosts(["127.0.0.1"])
DATA = bytes(range(256)) * 40


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stores, "RETRY_PAUSES_S", (0.05, 0.1, 0.2))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.bin").write_bytes(DATA)
    with WebStore(tmp_path) as server:
        yield server


def test_paths_and_urls_are_told_apart():
    assert place_of("s3://bucket/a/") == place_of(Path("s3://bucket/a")) == RemotePath("s3://bucket/a")
    assert place_of("a/b") == Path("a/b")
    assert place_of("file:///a%20b") == Path("/a b")
    assert str(place_of("https://host/a") / "../b/c.tar") == "https://host/b/c.tar"
    assert str(place_of("s3://bucket") / "c.tar") == "s3://bucket/c.tar"
    assert (place_of("memory://x/y.tar").name, str(place_of("memory://x") / ".")) == ("y.tar", "memory://x")


@pytest.mark.parametrize("url", ["s3://me:hidden@bucket/a", "https://h/a?X-Amz-Signature=hidden", "https://hidden@h/a"])
def test_a_url_with_a_secret_is_refused_without_repeating_it(url: str):
    with pytest.raises(MedclipError, match="AWS_ACCESS_KEY_ID") as e:
        place_of(url)
    assert e.value.reason is Reason.WRONG_USE
    assert "hidden" not in str(e.value)


@LOOPBACK
@pytest.mark.parametrize("faults", [["500", "500"], ["cut"], ["short", "500", "cut"]])
def test_what_fails_for_a_while_is_asked_for_again(store: WebStore, faults: list[str]):
    store.faults = list(faults)
    assert read_range(place_of(store.url) / "folder/a.bin", 100, 1000) == DATA[100:1100]
    assert not store.faults


@LOOPBACK
def test_a_server_that_is_gone_for_a_while_is_waited_for(store: WebStore):
    store.stop()
    threading.Timer(0.25, store.start).start()
    assert read_whole(place_of(store.url) / "folder/a.bin") == DATA
    store.stop()
    threading.Timer(0.25, store.start).start()
    assert size_of(place_of(store.url) / "folder/a.bin") == len(DATA)


@LOOPBACK
def test_what_stays_wrong_is_one_sentence_with_the_place(store: WebStore):
    place = place_of(store.url) / "folder/a.bin"
    store.faults = ["500"] * 4
    with pytest.raises(MedclipError, match="could not be read in 4 attempts") as e:
        read_range(place, 0, 10)
    assert (e.value.reason, e.value.where, e.value.__cause__) == (Reason.READ_ERROR, str(place), None)
    store.faults = ["403"]
    with pytest.raises(MedclipError) as e:
        read_range(place, 0, 10)
    assert (e.value.reason, store.faults) == (Reason.PERMISSION_DENIED, [])
    with pytest.raises(MedclipError) as e:
        read_range(place_of(store.url) / "folder/b.bin", 0, 10)
    assert e.value.reason is Reason.MISSING_FILE
    for start, size in ((len(DATA) - 5, 10), (len(DATA) + 5, 10)):
        with pytest.raises(MedclipError) as e:
            read_range(place, start, size)
        assert e.value.reason is Reason.CORRUPT


@LOOPBACK
def test_a_download_goes_from_front_to_back_in_few_ranges(store: WebStore, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(stores, "CHUNK_BYTES", 4000)
    store.faults = ["", "cut"]
    with (tmp_path / "copy").open("w+b") as file:
        assert download(place_of(store.url) / "folder/a.bin", file, len(DATA)) == hashlib.sha256(DATA).hexdigest()
    assert (tmp_path / "copy").read_bytes() == DATA
    assert [start for _, start, _ in store.requests] == [0, 4000, 4000, 8000]


@LOOPBACK
def test_s3_is_read_in_ranges_and_listed(s3: str, store: WebStore):
    place = place_of(upload(store.folder / "folder", "remote-test", s3))
    assert (names_in(place), size_of(place / "a.bin")) == (["a.bin"], len(DATA))
    assert read_range(place / "a.bin", 5, 20) == DATA[5:25]
    with local_copy(place / "a.bin") as file:
        assert file.read() == DATA
    for start, name, reason in ((len(DATA) + 1, "a.bin", Reason.CORRUPT), (0, "b.bin", Reason.MISSING_FILE)):
        with pytest.raises(MedclipError) as e:
            read_range(place / name, start, 10)
        assert e.value.reason is reason
    assert names_in(place_of("s3://remote-test/nothing")) == []


@LOOPBACK
def test_a_silent_server_is_given_up(store: WebStore, monkeypatch):
    monkeypatch.setattr(stores, "_SILENT_S", 0.1)
    store.latency_s = 1.0
    start = time.monotonic()
    import fsspec

    fsspec.filesystem("http").clear_instance_cache()
    with pytest.raises(MedclipError, match="TimeoutError"):
        read_range(place_of(store.url) / "folder/a.bin", 0, 10)
    fsspec.filesystem("http").clear_instance_cache()
    assert time.monotonic() - start < 3


def test_a_missing_extra_is_named_with_its_line(monkeypatch):
    import fsspec

    def lacks(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", lacks)
    with pytest.raises(MedclipError, match=r"pip install 'medclip-imaging\[remote\]'") as e:
        size_of(place_of("s3://bucket/a"))
    assert e.value.reason is Reason.MISSING_CODEC


def test_a_kind_of_store_that_nobody_knows_is_refused():
    with pytest.raises(MedclipError, match="no kind of store"):
        size_of(place_of("xyz://bucket/a"))


def test_shards_on_a_disk_need_no_fsspec(repository: Path):
    code = "import sys, medclip.shards; medclip.shards.open, medclip.shards.check, medclip.shards.index; "
    done = subprocess.run(
        [sys.executable, "-c", code + "print([m for m in sys.modules if m.startswith(('fsspec', 's3fs', 'aiohttp'))])"],
        capture_output=True,
        text=True,
        check=True,
        cwd=repository,
    )
    assert done.stdout.strip() == "[]"
