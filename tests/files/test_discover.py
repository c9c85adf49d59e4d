from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError, Reason
from medclip.files.discover import (
    discover,
    finished_stem,
    is_finished,
    is_unfinished,
    name_of_spelled,
    spelled_name,
)


def _touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_files_are_listed_in_the_byte_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b/1", "a/2", "a.txt", "B", "ä", "a/1"):
        _touch(tmp_path / name)
    assert [ref.name for ref in discover(tmp_path)] == ["B", "a.txt", "a/1", "a/2", "b/1", "ä"]


def test_a_single_file_is_a_list_of_one(tmp_path: Path) -> None:
    file = _touch(tmp_path / "a")
    assert [(ref.name, ref.path, ref.size_bytes) for ref in discover(file)] == [("a", file, 1)]


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    assert discover(tmp_path) == ()


def test_a_missing_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedclipError) as caught:
        discover(tmp_path / "nowhere")
    assert caught.value.reason is Reason.MISSING_FILE


def test_a_link_out_of_the_folder_is_one_entry_that_says_so_and_is_followed_where_that_is_wished(
    tmp_path: Path,
) -> None:
    _touch(tmp_path / "outside/x.png")
    _touch(tmp_path / "root2/y.png")
    (tmp_path / "root").mkdir()
    _touch(tmp_path / "root/own.png")
    (tmp_path / "root/link").symlink_to(tmp_path / "outside")
    (tmp_path / "root/film.png").symlink_to(tmp_path / "outside/x.png")
    (tmp_path / "root/named alike").symlink_to(tmp_path / "root2")
    (tmp_path / "root/copy.png").symlink_to(tmp_path / "root/own.png")
    refs = {ref.name: ref.problem for ref in discover(tmp_path / "root")}
    outside = {name for name, problem in refs.items() if problem and problem.reason is Reason.LINK_OUTSIDE}
    assert outside == {"link", "film.png", "named alike"}
    assert refs.keys() - outside == {"own.png", "copy.png"}
    followed = discover(tmp_path / "root", follow_links=True)
    assert [ref.name for ref in followed] == ["copy.png", "film.png", "link/x.png", "named alike/y.png", "own.png"]
    assert not [ref.problem for ref in followed if ref.problem]


def test_the_folder_that_is_named_may_be_a_link(tmp_path: Path) -> None:
    _touch(tmp_path / "real/x.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "film.png").symlink_to(tmp_path / "real/x.png")
    for root in ("link", "film.png"):
        (ref,) = discover(tmp_path / root)
        assert ref.problem is None


def test_a_link_loop_is_one_entry_and_ends(tmp_path: Path) -> None:
    _touch(tmp_path / "a/x")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    found = {ref.name: ref.problem.reason if ref.problem else None for ref in discover(tmp_path)}
    assert found == {"a/up": Reason.LINK_LOOP, "a/x": None, "self": Reason.LINK_LOOP}


def test_many_folders_that_link_to_each_other_are_read_once_each(tmp_path: Path) -> None:
    for i in range(12):
        _touch(tmp_path / f"out/{i}/file")
        for j in range(12):
            (tmp_path / f"out/{i}/to{j}").symlink_to(tmp_path / f"out/{j}")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/start").symlink_to(tmp_path / "out/0")
    found = discover(tmp_path / "root", follow_links=True)
    assert sum(ref.problem is None for ref in found) == 12


def test_what_is_not_a_file_says_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    found = {ref.name: ref.problem.reason for ref in discover(tmp_path)}
    assert found == {"dangling": Reason.MISSING_FILE, "pipe": Reason.NOT_A_FILE}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_paths_say_so(tmp_path: Path) -> None:
    _touch(tmp_path / "file").chmod(0)
    (tmp_path / "folder").mkdir(mode=0)
    assert [ref.problem.reason for ref in discover(tmp_path)] == [Reason.PERMISSION_DENIED] * 2


def test_unreadable_paths_say_so_whoever_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path / "file")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert [ref.problem.reason for ref in discover(tmp_path)] == [Reason.PERMISSION_DENIED]


def test_an_excluded_folder_is_left_out(tmp_path: Path) -> None:
    _touch(tmp_path / "in/x")
    _touch(tmp_path / "out/y")
    assert [ref.name for ref in discover(tmp_path, exclude=[tmp_path / "out"])] == ["in/x"]


def _ledger(path: Path, *tables: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as database:
        for table in tables:
            database.execute(f"CREATE TABLE IF NOT EXISTS {table} (key TEXT)")
        database.commit()


def test_an_output_folder_below_the_root_is_left_out(tmp_path: Path) -> None:
    _touch(tmp_path / "in/x")
    _touch(tmp_path / "results/report.html")
    _ledger(tmp_path / "results/ledger.sqlite", "meta", "chunks", "files", "scores")
    assert [ref.name for ref in discover(tmp_path)] == ["in/x"]
    assert len(discover(tmp_path / "results")) == 2


def test_the_output_folder_of_a_run_that_was_killed_is_left_out_too(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "results/ledger.sqlite")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        for table in ("meta", "files", "scores"):
            database.execute(f"CREATE TABLE {table} (key TEXT)")
        database.commit()
        assert (tmp_path / "results/ledger.sqlite-wal").stat().st_size
        assert discover(tmp_path) == ()


def test_a_ledger_of_something_else_is_a_file_like_any_other(tmp_path: Path) -> None:
    _touch(tmp_path / "a/ledger.sqlite")
    _ledger(tmp_path / "b/ledger.sqlite", "accounts")
    assert [ref.name for ref in discover(tmp_path)] == ["a/ledger.sqlite", "b/ledger.sqlite"]


def test_a_name_that_is_not_utf8_is_spelled_out(tmp_path: Path) -> None:
    _touch(tmp_path / os.fsdecode(b"caf\xe9.png"))
    (ref,) = discover(tmp_path)
    assert ref.name == r"caf\xe9.png"
    assert ref.path.read_bytes() == b"x"


@given(st.lists(st.sampled_from([b"\\", b"x", b"\\xff", b"\\x5c", b"\xff", b"\xc3\xa4", b"4", b"1"]), max_size=8))
def test_a_spelled_name_leads_back_to_the_name_it_was(parts: list[bytes]) -> None:
    name = os.fsdecode(b"".join(parts))
    spelled_name(name).encode()
    assert name_of_spelled(spelled_name(name)) == name


def test_a_folder_deeper_than_a_path_may_be_is_one_entry(tmp_path: Path) -> None:
    _touch(tmp_path / "root" / "a")
    here = os.open(tmp_path / "root", os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        found = discover(tmp_path / "root")
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "root"], check=True)  # shutil gives up on such depths
    assert [ref.problem and ref.problem.reason for ref in found] == [None, Reason.READ_ERROR]


@given(st.sets(st.text("aB0_.-", min_size=1, max_size=4).filter(lambda name: name.strip(".")), max_size=8))
def test_the_order_is_that_of_sorted_bytes(tmp_path_factory: pytest.TempPathFactory, names: set[str]) -> None:
    root = tmp_path_factory.mktemp("order")
    for name in names:
        _touch(root / name)
    found = [ref.name.encode() for ref in discover(root)]
    assert found == sorted(name.encode() for name in names)


PLAIN = st.text("abcXYZ019_-", min_size=1, max_size=12)
MARKED = {
    "dcm4che, a browser": "{}.part",
    "rsync": ".{}.a1B2c3",
    "rclone": "{}.0a1b2c3d.partial",
    "WinSCP": "{}.filepart",
    "Syncthing": ".syncthing.{}.tmp",
    "Syncthing on Windows": "~syncthing~{}.tmp",
    "lftp": ".in.{}",
    "Chrome": "{}.crdownload",
    "an editor": "{}~",
}
"""Names of files that are not there yet, by who uses them."""


@pytest.mark.parametrize("marked", MARKED.values(), ids=MARKED)
@given(PLAIN, st.sampled_from(["", ".dcm", ".jpg"]), PLAIN)
def test_an_unfinished_name_leads_to_the_real_one_and_to_no_other(
    marked: str, stem: str, suffix: str, folder: str
) -> None:
    name, unfinished = f"{folder}/{stem}{suffix}", f"{folder}/{marked.format(stem + suffix)}"
    assert (is_unfinished(name), is_unfinished(unfinished)) == (False, True)
    assert is_finished(unfinished, name)
    assert name.startswith(finished_stem(unfinished))
    assert not is_finished(unfinished, f"{folder}/{stem}0{suffix}")
    assert not is_finished(unfinished, f"{folder}0/{stem}{suffix}")


def test_a_unique_identifier_is_no_name_with_a_suffix() -> None:
    assert is_finished("in/1.2.840.5.part", "in/1.2.840.5.dcm")
    assert not is_finished("in/1.2.840.5.part", "in/1.2.840.5.7")
    assert not is_finished("in/1.2.840.5.part", "in/1.2.840")
