from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from medclip.errors import MedclipError, Reason
from medclip.files import stores
from medclip.files.stores import RemotePath, place_of
from medclip.shards.reading import shard_files
from medclip.shards.reading import shard_files as read_ahead
from medclip.shards.reading.shard_cache import Fetched, ShardCache, ShardFile, WantedList
from medclip.shards.reading.shard_files import ReadAhead, ShardFiles
from tests.kits.stores import WebStore

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
SIZE = 1000


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stores, "RETRY_PAUSES_S", (0.05, 0.1))
    folder = tmp_path / "store"
    folder.mkdir()
    for i in range(6):
        (folder / f"{i}.tar").write_bytes(bytes([i]) * SIZE)
    with WebStore(folder) as server:
        yield server


def shard(store: WebStore, i: int) -> ShardFile:
    name = f"{i}.tar"
    sha256 = hashlib.sha256(bytes([i]) * SIZE).hexdigest()
    return ShardFile(place_of(store.url) / name, name, "train", 1, SIZE, sha256)


def fetch(cache: ShardCache, s: ShardFile, **options: bool) -> Fetched:
    assert isinstance(s.path, RemotePath)
    return cache.fetch(s.path, s.sha256, s.num_bytes, **options)


def here(cache: ShardCache, store: WebStore) -> list[int]:
    return [i for i in range(6) if cache.has(shard(store, i).sha256)]


def test_of_many_who_want_a_shard_one_fetches_it(store: WebStore, tmp_path: Path):
    cache = ShardCache(tmp_path / "cache", 10 * SIZE)
    store.latency_s = 0.1
    states: list[Fetched] = []
    threads = [threading.Thread(target=lambda: states.append(fetch(cache, shard(store, 0)))) for _ in range(5)]
    for t in threads:
        t.start()
    time.sleep(0.05)
    assert fetch(cache, shard(store, 0), wait=False) is Fetched.BUSY
    for t in threads:
        t.join()
    assert states == [Fetched.HERE] * 5
    assert len(store.requests) == 1
    descriptor = cache.open(shard(store, 0).sha256, SIZE)
    assert descriptor is not None
    assert os.read(descriptor, 2 * SIZE) == bytes(SIZE)
    os.close(descriptor)


def test_the_longest_unused_goes_first_and_the_ceiling_holds(store: WebStore, tmp_path: Path):
    cache = ShardCache(tmp_path / "cache", 3 * SIZE)
    for i in range(3):
        fetch(cache, shard(store, i))
        os.utime(cache.folder / shard(store, i).sha256, (i, i))
    os.close(cache.open(shard(store, 0).sha256) or -1)  # used now
    fetch(cache, shard(store, 3))
    assert here(cache, store) == [0, 2, 3]
    assert fetch(ShardCache(cache.folder, SIZE - 1), shard(store, 4)) is Fetched.NO_ROOM
    assert here(cache, store) == [0, 2, 3]  # nothing goes for what does not fit
    assert not list(cache.folder.glob("*.part"))


def test_what_is_wanted_stays_and_its_place_is_kept(store: WebStore, tmp_path: Path):
    cache = ShardCache(tmp_path / "cache", 3 * SIZE)
    fetch(cache, shard(store, 0))
    fetch(cache, shard(store, 1))
    wanted = WantedList(cache)
    wanted.write({shard(store, i).sha256: SIZE for i in (0, 2)})
    assert fetch(cache, shard(store, 3)) is Fetched.HERE  # in the place of 1
    assert here(cache, store) == [0, 3]
    assert fetch(cache, shard(store, 2)) is Fetched.HERE
    assert fetch(cache, shard(store, 4)) is Fetched.HERE  # in the place of 3
    assert here(cache, store) == [0, 2, 4]
    wanted.write({shard(store, i).sha256: SIZE for i in (0, 2, 4)})
    assert fetch(cache, shard(store, 5)) is Fetched.NO_ROOM
    wanted.close()
    assert fetch(cache, shard(store, 5)) is Fetched.HERE


def test_what_came_wrong_is_refused_and_not_kept(store: WebStore, tmp_path: Path):
    cache = ShardCache(tmp_path / "cache", 10 * SIZE)
    (store.folder / "0.tar").write_bytes(b"x" * SIZE)
    with pytest.raises(MedclipError, match=r"0\.tar: .*sha256 is not that of the index") as e:
        fetch(cache, shard(store, 0))
    assert e.value.reason is Reason.CORRUPT
    store.faults = ["500"] * 9
    with pytest.raises(MedclipError, match=r"1\.tar.*could not be read"):
        fetch(cache, shard(store, 1))
    assert [p.name for p in cache.folder.iterdir()] == ["lock"]


def test_other_files_in_the_folder_are_left_alone_and_a_damaged_one_is_fetched_again(store: WebStore, tmp_path: Path):
    cache = ShardCache(tmp_path / "cache", SIZE)
    cache.folder.mkdir()
    (cache.folder / "thesis.part").write_text("mine")
    for i in range(2):
        fetch(cache, shard(store, i))
    assert (cache.folder / "thesis.part").read_text() == "mine"
    (cache.folder / shard(store, 1).sha256).write_bytes(b"cut")
    assert cache.open(shard(store, 1).sha256, SIZE) is None
    assert fetch(cache, shard(store, 1)) is Fetched.HERE


@pytest.mark.parametrize("name", ["../thesis", "", "0" * 63, "None"])
def test_an_index_cannot_name_a_file_outside_the_cache(store: WebStore, tmp_path: Path, name: str):
    cache = ShardCache(tmp_path / "cache", 10 * SIZE)
    (tmp_path / "thesis").write_text("mine")
    for call in (cache.has, cache.open, lambda n: cache.fetch(place_of(store.url) / "0.tar", n, SIZE)):
        with pytest.raises(MedclipError, match="no sha256"):
            call(name)
    assert (tmp_path / "thesis").read_text() == "mine"


def test_a_file_system_without_locks_is_one_sentence(store: WebStore, tmp_path: Path, monkeypatch):
    import fcntl

    def lacks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", lacks)
    with pytest.raises(MedclipError, match=r"without locks.*data\.shard_cache") as e:
        fetch(ShardCache(tmp_path / "cache", 10 * SIZE), shard(store, 0))
    assert e.value.reason is Reason.WRONG_USE


def test_a_cache_that_is_a_file_or_another_users_is_one_sentence(store: WebStore, tmp_path: Path, monkeypatch):
    (tmp_path / "file").write_text("")
    wanted = shard(store, 0)
    with pytest.raises(MedclipError, match="a file stands where a folder should be") as caught:
        ShardFiles([wanted], cache=ShardCache(tmp_path / "file", 10 * SIZE)).read(0, 0, 1)
    assert (caught.value.reason, caught.value.where) == (Reason.WRONG_USE, str(tmp_path / "file"))

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    files = ShardFiles([wanted], cache=ShardCache(tmp_path / "theirs", 10 * SIZE))
    fetch(files.cache, wanted)
    monkeypatch.setattr(os, "open", refuse)  # as for files of mode 0600; tests may run as root
    with pytest.raises(MedclipError) as caught:
        files.read(0, 0, 1)
    assert (caught.value.reason, caught.value.where) == (Reason.PERMISSION_DENIED, str(tmp_path / "theirs"))


def test_a_kill_leaves_nothing_that_counts(store: WebStore, tmp_path: Path, repository: Path):
    cache = ShardCache(tmp_path / "cache", 2 * SIZE)
    store.latency_s = 30
    code = (
        "import pathlib; from medclip.shards.reading.shard_cache import ShardCache, WantedList;"
        "from medclip.files.stores import place_of;"
        f"cache = ShardCache(pathlib.Path({str(cache.folder)!r}), {2 * SIZE});"
        f"WantedList(cache).write({{{shard(store, 3).sha256!r}: {SIZE}}});"
        f"cache.fetch(place_of({str(shard(store, 0).path)!r}), {shard(store, 0).sha256!r}, {SIZE})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=repository)
    part = cache.folder / f"{shard(store, 0).sha256}.part"
    until = time.monotonic() + 30
    while time.monotonic() < until and not (part.exists() and part.stat().st_size):
        time.sleep(0.01)
    assert fetch(cache, shard(store, 1)) is Fetched.NO_ROOM  # its part and what it wants take the room
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    store.latency_s = 0
    assert fetch(cache, shard(store, 1)) is Fetched.HERE
    assert fetch(cache, shard(store, 2)) is Fetched.HERE
    assert here(cache, store) == [1, 2]
    assert not part.exists()
    assert not list(cache.folder.glob("wanted-*"))


def test_shards_come_ahead_in_their_order_each_once(store: WebStore, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(read_ahead, "AT_ONCE", 1)
    cache = ShardCache(tmp_path / "cache", 4 * SIZE)
    ahead = ReadAhead(cache, in_processes=False)
    ahead.want([shard(store, i) for i in (3, 1)], [shard(store, 5)])
    assert set(here(cache, store)) >= {1, 3}
    ahead.want([shard(store, 5)], [shard(store, 0), shard(store, 2)])
    until = time.monotonic() + 20
    while time.monotonic() < until and not {0, 2, 5} <= set(here(cache, store)):
        time.sleep(0.01)
    ahead.close()
    assert [path for path, _, _ in store.requests] == [f"/{i}.tar" for i in (3, 1, 5, 0, 2)]
    assert len(here(cache, store)) == 4


def test_a_window_that_is_larger_than_the_cache_does_not_wait_for_the_rest(store: WebStore, tmp_path: Path):
    cache = ShardCache(tmp_path / "cache", 2 * SIZE)
    files = ShardFiles([shard(store, i) for i in range(5)], cache=cache)
    files.want([4, 2, 3, 0, 1])
    assert here(cache, store) == [2, 4]
    store.requests.clear()
    for _ in range(4):
        assert [files.read(i, 10, 5) for i in range(5)] == [bytes([i]) * 5 for i in range(5)]
    assert here(cache, store) == [2, 4]
    assert {sent for _, _, sent in store.requests} == {5}  # by ranges, and no whole shard for a few samples
    assert {path for path, _, _ in store.requests} == {"/0.tar", "/1.tar", "/3.tar"}
    files.close()


def test_a_shard_that_others_leave_no_room_for_is_given_up_after_a_while(store, tmp_path, monkeypatch):
    monkeypatch.setattr(read_ahead, "_NO_ROOM_S", 0.3)
    cache = ShardCache(tmp_path / "cache", 2 * SIZE)
    other = WantedList(cache)
    other.write({shard(store, i).sha256: SIZE for i in (4, 5)})
    fetch(cache, shard(store, 4))
    fetch(cache, shard(store, 5))
    files = ShardFiles([shard(store, 0)], cache=cache)
    files.want([0])
    assert here(cache, store) == [4, 5]
    assert files.read(0, 0, 3) == bytes(3)
    files.close()
    other.close()


def test_what_cannot_be_fetched_is_told_when_it_is_needed(store: WebStore, tmp_path: Path):
    (store.folder / "1.tar").unlink()
    files = ShardFiles([shard(store, i) for i in range(3)], cache=ShardCache(tmp_path / "cache", 10 * SIZE))
    files.want([0], [1])
    with pytest.raises(MedclipError, match=r"1\.tar") as e:
        files.want([1], [2])
    assert e.value.reason is Reason.MISSING_FILE
    (store.folder / "1.tar").write_bytes(bytes([1]) * SIZE)
    files.want([1], [2])
    files.close()


def test_whoever_waits_hears_of_a_fault_that_nobody_thought_of(store, tmp_path, monkeypatch):
    def broken(*_: object) -> Fetched:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(read_ahead, "fetch", broken)
    files = ShardFiles([shard(store, 2)], cache=ShardCache(tmp_path / "cache", 10 * SIZE))
    with pytest.raises(MedclipError, match=r"2\.tar.*RuntimeError"):
        files.want([0])
    files.close()


def test_a_shard_of_which_nobody_planned_more_is_fetched_with_the_third_sample(store, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_files, "_WORTH_FETCHING", 3)
    files = ShardFiles([shard(store, 0)], cache=ShardCache(tmp_path / "cache", 10 * SIZE))
    for _ in range(9):
        assert files.read(0, 7, 9) == bytes(9)
    assert [sent for _, _, sent in store.requests] == [9, 9, SIZE]
