"""Folders that change between two calls, and names and layouts that nobody would choose."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import pytest

from medclip.api.runs import retry
from medclip.cli.progress import PlainProgress
from medclip.errors import MedclipError
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.operations.run_status import read_status
from medclip.runs.outputs.score_run import ScoreRun, read_run
from medclip.runs.planning import listing, look
from medclip.settings import Settings
from tests.kits.ecg import heart, write_wfdb
from tests.kits.scoring import STUDY_UID, digests, rows, write_dicom
from tests.runs.test_nights import Stopped, run, scattered, small_windows

__all__ = ["small_windows"]
FOLLOWING = Settings(follow_links=True)
"""Links may lead out of the folder."""


def assert_equal(one: ScoreRun, other: ScoreRun) -> None:
    """Compare what two runs say of their files and studies."""
    assert rows(one) == rows(other)
    assert one.scores.to_pylist() == other.scores.to_pylist()


def test_a_file_that_now_belongs_to_another_study_leaves_the_old_one_and_joins_the_new(
    pack: Path, tmp_path: Path
) -> None:
    root = scattered(tmp_path / "in")
    run(root, tmp_path / "out", pack)
    write_dicom(root / "2" / "empty.dcm", 60, study_uid=f"{STUDY_UID}.1")
    write_dicom(root / "1" / "x.dcm", 61, study_uid=f"{STUDY_UID}.0")
    write_dicom(root / "flat" / "0.dcm", 62, study_uid=f"{STUDY_UID}.91")
    assert_equal(run(root, tmp_path / "out", pack, add=True), run(root, tmp_path / "whole", pack))


def test_a_change_that_was_refused_is_refused_again(pack: Path, tmp_path: Path) -> None:
    root = scattered(tmp_path / "in")
    run(root, tmp_path / "out", pack)
    before = digests(tmp_path / "out")
    write_dicom(root / "1" / "x.dcm", 61, study_uid=f"{STUDY_UID}.0")
    for _ in range(2):
        with pytest.raises(MedclipError, match="1 scored file has changed since"):
            run(root, tmp_path / "out", pack)
    assert digests(tmp_path / "out") == before


def test_a_file_that_was_only_touched_is_read_once_and_then_known(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = scattered(tmp_path / "in")
    run(root, tmp_path / "out", pack)
    os.utime(root / "1" / "x.dcm")
    assert run(root, tmp_path / "out", pack).already_finished
    monkeypatch.setattr(look.Looker, "_start", None)
    assert run(root, tmp_path / "out", pack).already_finished


def test_a_file_that_the_table_named_before_it_came_is_scored_with_add(pack: Path, tmp_path: Path) -> None:
    root, table = tmp_path / "in", tmp_path / "table.csv"
    write_dicom(root / "a.dcm", 1)
    table.write_text("file\na.dcm\nb.dcm\n")
    assert rows(run(root, tmp_path / "out", pack, table=table))["b.dcm"]["reason"] == "missing_file"
    write_dicom(root / "b.dcm", 2, study_uid=f"{STUDY_UID}.7")
    with pytest.raises(MedclipError, match="changed since"):
        run(root, tmp_path / "out", pack, table=table)
    added = run(root, tmp_path / "out", pack, table=table, add=True)
    assert_equal(added, run(root, tmp_path / "whole", pack, table=table))


def test_a_link_whose_file_was_archived_keeps_its_row(pack: Path, tmp_path: Path) -> None:
    root = tmp_path / "in"
    write_dicom(root / "a.dcm", 1)
    film = write_dicom(tmp_path / "archive" / "b.dcm", 2, study_uid=f"{STUDY_UID}.7")
    (root / "b.dcm").symlink_to(film)
    run(root, tmp_path / "out", pack, settings=FOLLOWING)
    film.unlink()
    assert run(root, tmp_path / "out", pack, settings=FOLLOWING).already_finished


def test_a_window_of_which_a_file_changed_after_a_stop_loses_no_row(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medclip.runs.planning.plan.CHUNK_FILES", 2)
    root = tmp_path / "in"
    for n in range(8):
        write_dicom(root / f"{n}.dcm", n, study_uid=f"{STUDY_UID}.{n // 2}")
    commit = Ledger.commit

    def once(self: Ledger, result: Any) -> None:
        commit(self, result)
        raise Stopped

    monkeypatch.setattr(Ledger, "commit", once)
    with pytest.raises(Stopped):
        run(root, tmp_path / "out", pack)
    monkeypatch.setattr(Ledger, "commit", commit)
    write_dicom(root / "7.dcm", 77, study_uid=f"{STUDY_UID}.0")  # it joins the study that is done
    assert_equal(run(root, tmp_path / "out", pack), run(root, tmp_path / "whole", pack))


def test_a_run_that_grows_is_stopped_until_the_new_files_are_scored(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = scattered(tmp_path / "in")
    run(root, tmp_path / "out", pack)
    write_dicom(root / "new" / "z.dcm", 51, study_uid=f"{STUDY_UID}.77")

    def stop(*_: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr("medclip.runs.conduct.load_run_model", stop)
        with pytest.raises(Stopped):
            run(root, tmp_path / "out", pack, add=True)
    assert read_status(tmp_path / "out").state == "stopped"
    with monkeypatch.context() as patched:
        patched.setattr("medclip.runs.outputs.results.write_rows", stop)
        with pytest.raises(Stopped):
            run(root, tmp_path / "out", pack)
    with pytest.raises(MedclipError, match=r"run\.json is missing"):  # its tables may be of two times
        read_run(tmp_path / "out")
    assert_equal(run(root, tmp_path / "out", pack), run(root, tmp_path / "whole", pack))


def test_rows_come_while_a_million_texts_are_listed(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_windows: None
) -> None:
    root = tmp_path / "in"
    for n in range(40):
        (root / f"{n:02d}").mkdir(parents=True)
        for part in "ab":
            (root / f"{n:02d}" / f"{part}.txt").write_text(f"{n} {part}")
    write_dicom(root / "z" / "1.dcm", 1)
    listed: list[int] = []
    commit = Ledger.commit

    def noting(self: Ledger, result: Any) -> Any:
        listed.append(self.num_listed())
        return commit(self, result)

    monkeypatch.setattr(Ledger, "commit", noting)
    run(root, tmp_path / "out", pack)
    assert listed[0] < 20 < listed[-1] == 81


def test_no_name_is_taken_for_another(pack: Path, tmp_path: Path) -> None:
    root = tmp_path / "in"
    write_dicom(root / "new\nline.dcm", 1, study_uid=f"{STUDY_UID}.1")
    write_dicom(root / r"x\x41.dcm", 2, study_uid=f"{STUDY_UID}.2")
    write_dicom(root / r"a\xff.dcm", 3, study_uid=f"{STUDY_UID}.3")
    write_dicom(root / os.fsdecode(b"a\xff.dcm"), 4, study_uid=f"{STUDY_UID}.4")
    first = run(root, tmp_path / "out", pack)
    assert list(rows(first)) == [r"a\x5cxff.dcm", r"a\xff.dcm", "new\nline.dcm", r"x\x5cx41.dcm"]
    assert first.counts["scored"] == 4
    assert run(root, tmp_path / "out", pack).already_finished


def test_records_are_whole_where_their_folder_is_cut(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_windows: None
) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for n in range(5):
        write_wfdb(root, heart(seed=n), name=f"r{n}")
    cut = run(root, tmp_path / "cut", pack)
    monkeypatch.setattr(listing, "CUT_FILES", 2048)
    assert_equal(cut, run(root, tmp_path / "whole", pack))


def test_a_file_that_came_to_where_a_link_led_is_tried_again_without_add(pack: Path, tmp_path: Path) -> None:
    root = tmp_path / "in"
    write_dicom(root / "a.dcm", 1)
    for name in ("b.dcm", "c.dcm"):
        (root / name).symlink_to(tmp_path / "archive" / name)
    before = rows(run(root, tmp_path / "out", pack, settings=FOLLOWING))
    write_dicom(tmp_path / "archive" / "b.dcm", 2, study_uid=f"{STUDY_UID}.7")
    again: Any = retry(tmp_path / "out", reason="missing_file")
    after = rows(again)
    assert (before["b.dcm"]["reason"], after["b.dcm"]["status"]) == ("missing_file", "scored")
    assert before["c.dcm"] == after["c.dcm"]


def test_a_study_that_loses_a_file_to_another_is_scored_from_what_is_left(pack: Path, tmp_path: Path) -> None:
    root = tmp_path / "in"
    for n in range(3):
        write_dicom(root / f"{n}.dcm", n, study_uid=f"{STUDY_UID}.0")
    run(root, tmp_path / "out", pack)
    write_dicom(root / "2.dcm", 61, study_uid=f"{STUDY_UID}.1")
    assert_equal(run(root, tmp_path / "out", pack, add=True), run(root, tmp_path / "whole", pack))


def test_files_that_only_the_table_names_are_counted_before_they_are_reported(pack: Path, tmp_path: Path) -> None:
    root = scattered(tmp_path / "in")
    names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file()]
    table = tmp_path / "table.csv"
    table.write_text("file\n" + "\n".join([*names, *(f"1/gone{n}.dcm" for n in range(9))]) + "\n")
    stream = io.StringIO()
    counts = run(root, tmp_path / "out", pack, table=table, progress=PlainProgress(stream)).counts
    assert counts["files"] == len(names) + 9
    lines = [line for line in stream.getvalue().splitlines() if line.startswith("Reading and scoring")]
    assert lines[-1].startswith(f"Reading and scoring: {counts['files']} of {counts['files']}")
    reached = [re.findall(r"(\d+) of (\d+)", line)[0] for line in lines[1:]]
    assert all(int(done) <= int(total) for done, total in reached)


def test_a_failed_file_that_came_under_another_name_has_one_row(pack: Path, tmp_path: Path) -> None:
    root = tmp_path / "in"
    for n, name in enumerate(("a/1.dcm", "a/2.dcm.part", "a/.3.dcm.Xy12Ab", "a/IM0004", "a/5.dcm", "a/6.dcm")):
        write_dicom(root / name, n)
    content = {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for name in ("2.dcm.part", ".3.dcm.Xy12Ab", "IM0004", "5.dcm", "6.dcm"):
        (root / "a" / name).write_bytes(content[name][:-500])
    (root / "a" / ".3.dcm.Xy12Ab").write_bytes(b"")
    first = rows(run(root, tmp_path / "out", pack))
    assert sum(row["status"] == "failed" for row in first.values()) == 5
    for name, real in (("2.dcm.part", "2.dcm"), (".3.dcm.Xy12Ab", "3.dcm"), ("IM0004", "IM0005")):
        (root / "a" / name).unlink()
        (root / "a" / real).write_bytes(content[name])
    (root / "b").mkdir()
    (root / "a" / "5.dcm").rename(root / "b" / "5.dcm")  # broken as it is
    after = run(root, tmp_path / "out", pack, add=True)
    assert_equal(after, run(root, tmp_path / "whole", pack))
    assert {name for name, row in rows(after).items() if row["status"] == "failed"} == {"a/6.dcm", "b/5.dcm"}
    (root / "a" / "6.dcm").unlink()  # it came under no other name: that it failed stays
    assert rows(run(root, tmp_path / "out", pack, add=True)) == rows(after)


def test_a_file_that_moves_while_its_study_grows_is_scored_where_it_is(pack: Path, tmp_path: Path) -> None:
    root = tmp_path / "in"
    write_dicom(root / "new" / "1.dcm", 1)
    write_dicom(root / "new" / "2.dcm.tmp", 2)
    write_dicom(root / "new" / "3.dcm", 3)
    run(root, tmp_path / "out", pack)
    (root / "sorted").mkdir()
    (root / "new" / "1.dcm").rename(root / "sorted" / "1.dcm")
    (root / "new" / "2.dcm.tmp").rename(root / "new" / "2.dcm")
    write_dicom(root / "sorted" / "4.dcm", 4)
    assert_equal(run(root, tmp_path / "out", pack, add=True), run(root, tmp_path / "whole", pack))
    (root / "sorted" / "1.dcm").unlink()  # what was archived keeps its row
    assert run(root, tmp_path / "out", pack, add=True).already_finished


def test_a_failed_file_that_is_gone_and_a_file_like_it_that_stays_are_two_where_both_were_there(
    pack: Path, tmp_path: Path
) -> None:
    root = tmp_path / "in"
    broken = write_dicom(root / "a.dcm", 1)
    broken.write_bytes(broken.read_bytes()[:-500])
    write_dicom(root / "b.dcm", 1, study_uid=f"{STUDY_UID}.2")
    before = rows(run(root, tmp_path / "out", pack))
    write_dicom(root / "c.dcm", 3, study_uid=f"{STUDY_UID}.3")
    broken.unlink()
    after = rows(run(root, tmp_path / "out", pack, add=True))
    assert after["a.dcm"] == before["a.dcm"]
    assert after["a.dcm"]["reason"] == "truncated"


@pytest.mark.parametrize("hash_paths", [False, True])
def test_a_stop_after_any_step_of_settling_ends_in_the_same_rows(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hash_paths: bool
) -> None:
    root = tmp_path / "in"
    for n in range(3):
        write_dicom(root / f"{n}.dcm", n)
    whole = write_dicom(root / "3.dcm.part", 3).read_bytes()
    (root / "3.dcm.part").write_bytes(whole[:-500])
    run(root, tmp_path / "out", pack, hash_paths=hash_paths)
    (root / "3.dcm.part").unlink()
    (root / "3.dcm").write_bytes(whole)
    for method, after in (
        ("register", True),
        ("settle", False),
        ("settle", True),
        ("commit", False),
        ("number", False),
    ):
        original = getattr(Ledger, method)

        def stop(self: Ledger, *values: Any, _work: Any = original, _after: bool = after, **named: Any) -> None:
            if _after:
                _work(self, *values, **named)
            raise Stopped

        with monkeypatch.context() as patched:
            patched.setattr(Ledger, method, stop)
            with pytest.raises(Stopped):
                run(root, tmp_path / "out", pack, hash_paths=hash_paths, add=True)
    grown = run(root, tmp_path / "out", pack, hash_paths=hash_paths, add=True)
    assert_equal(grown, run(root, tmp_path / "whole", pack, hash_paths=hash_paths))
