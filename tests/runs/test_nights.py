"""Runs that are stopped, folders that change, studies that lie scattered: nothing is lost, nothing is read twice."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import RLELossless

from medclip.api.runs import retry
from medclip.api.score import score
from medclip.errors import MedclipError, Reason
from medclip.files.pseudonyms import hashed_path, load_key
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs import results
from medclip.runs.planning import listing, look, plan
from medclip.runs.units import chunk
from medclip.settings import Settings
from tests.kits.progress import Recorded
from tests.kits.scoring import STUDY_UID, digests, rows, write_dicom, write_png


class Stopped(BaseException):
    """Stands for a stop at an arbitrary point."""


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "WINDOW_FILES", 2)
    monkeypatch.setattr(look, "WINDOW_FILES", 2)
    monkeypatch.setattr(listing, "CUT_FILES", 3)
    monkeypatch.setattr(plan, "CHUNK_FILES", 1)
    monkeypatch.setattr(chunk, "READ_AHEAD", 1)


def scattered(root: Path) -> Path:
    """Two studies whose images lie in many folders, films of their own, and what cannot be read."""
    for n in range(6):
        write_dicom(root / f"{n}" / "x.dcm", n, study_uid=f"{STUDY_UID}.{n % 2}")
    for n in range(7):
        write_dicom(root / "flat" / f"{n}.dcm", 20 + n, study_uid=f"{STUDY_UID}.9{n}")
    write_png(root / "flat" / "loose.png", 40)
    (root / "2" / "empty.dcm").write_bytes(b"")
    cut = write_dicom(root / "3" / "cut.dcm", 41, study_uid=f"{STUDY_UID}.1")
    cut.write_bytes(cut.read_bytes()[:-2000])
    return root


def stop_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Stop before the commit of a number, from 0, and not a second time."""
    commit, num_commits = Ledger.commit, -1

    def stopping(self: Ledger, result: Any) -> Any:
        nonlocal num_commits
        num_commits += 1
        if num_commits == number:
            raise Stopped
        return commit(self, result)

    monkeypatch.setattr(Ledger, "commit", stopping)


def run(root: Path, out: Path, pack: Path, **options: Any) -> Any:
    return score(root, out, model=pack, workers=1, min_confidence=0.0, **options)


def count_looks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Note every file that is looked at, and whether its hash was known."""
    seen: list[tuple[str, bool]] = []
    start = look.Looker._start

    def noting(self: Any, window: Any) -> Any:
        seen.extend((file.name, file.sha256 is not None) for file in window if file.problem is None)
        return start(self, window)

    monkeypatch.setattr(look.Looker, "_start", noting)
    return seen


def test_a_study_that_lies_in_many_folders_is_scored_whole(pack: Path, tmp_path: Path, small_windows: None) -> None:
    root = scattered(tmp_path / "in")
    one = run(root, tmp_path / "out", pack)
    files = rows(one)
    assert len(files) == 16
    keys = [{files[f"{n}/x.dcm"]["study"] for n in range(6) if n % 2 == part} for part in (0, 1)]
    assert all(len(key) == 1 for key in keys)
    (odd,) = keys[1]
    assert files["3/cut.dcm"]["study"] == odd
    scores = [row for row in one.scores.to_pylist() if row["study"] == odd]
    assert {(row["num_images"], row["num_failed"], row["num_files"]) for row in scores} == {(3, 1, 3)}
    assert json.loads(scores[0]["files"]) == ["1/x.dcm", "3/x.dcm", "5/x.dcm"]


@pytest.mark.parametrize("group_by", ["auto", "folder", "file"])
def test_windows_and_a_stop_change_no_byte_of_the_result(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_by: str
) -> None:
    root = scattered(tmp_path / "in")
    run(root, tmp_path / "large", pack, group_by=group_by)
    monkeypatch.setattr(listing, "WINDOW_FILES", 2)
    monkeypatch.setattr(listing, "CUT_FILES", 3)
    monkeypatch.setattr(plan, "CHUNK_FILES", 1)
    run(root, tmp_path / "small", pack, group_by=group_by)
    assert digests(tmp_path / "small") == digests(tmp_path / "large")
    stop_at(monkeypatch, 4)
    with pytest.raises(Stopped):
        run(root, tmp_path / "stopped", pack, group_by=group_by)
    run(root, tmp_path / "stopped", pack, group_by=group_by)
    assert digests(tmp_path / "stopped") == digests(tmp_path / "large")


def test_a_run_over_one_file_is_stopped_and_goes_on_as_others_do(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = write_dicom(tmp_path / "in" / "film.dcm", 1)
    write_dicom(tmp_path / "in" / "beside.dcm", 2)
    run(film, tmp_path / "large", pack)
    stop_at(monkeypatch, 0)
    with pytest.raises(Stopped):
        run(film, tmp_path / "stopped", pack)
    assert list(rows(run(film, tmp_path / "stopped", pack))) == ["film.dcm"]
    assert digests(tmp_path / "stopped") == digests(tmp_path / "large")
    assert run(film, tmp_path / "stopped", pack, add=True).already_finished


@pytest.mark.slow
def test_a_run_stopped_anywhere_ends_in_the_same_bytes_and_looks_at_nothing_that_is_done(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_windows: None
) -> None:
    root = scattered(tmp_path / "in")
    run(root, tmp_path / "whole", pack)
    budget, stops = 0, 0

    def stopping(method: str) -> None:
        original = getattr(Ledger, method)

        def spend(self: Ledger, *values: Any, **named: Any) -> Any:
            nonlocal budget
            budget -= 1
            if budget < 0:
                raise Stopped
            return original(self, *values, **named)

        monkeypatch.setattr(Ledger, method, spend)

    for method in ("commit", "register", "looked_at", "tie", "remember"):
        stopping(method)
    seen = count_looks(monkeypatch)
    while True:
        budget = 3 + 4 * (stops % 3)
        try:
            run(root, tmp_path / "out", pack)
            break
        except Stopped:
            stops += 1
            assert stops < 60
    assert stops > 5
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    hashed = [name for name, known in seen if not known]
    assert max(map(hashed.count, set(hashed))) <= stops
    seen.clear()
    budget = 100
    assert run(root, tmp_path / "out", pack).already_finished
    assert not seen


def test_first_rows_are_there_while_most_files_were_not_even_listed(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_windows: None
) -> None:
    root = scattered(tmp_path / "in")
    listed: list[int] = []
    commit = Ledger.commit

    def noting(self: Ledger, result: Any) -> Any:
        listed.append(self.num_listed())
        return commit(self, result)

    monkeypatch.setattr(Ledger, "commit", noting)
    run(root, tmp_path / "out", pack)
    assert listed[0] < 16 == listed[-1]


def test_a_crash_while_looking_stays_what_it_is_and_the_run_goes_on(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = scattered(tmp_path / "in")
    looked = look.Looker._facts
    times = 0

    def losing(self: Any, looking: Any) -> Any:
        nonlocal times
        for at, file in enumerate(looking[0]):
            if file.name == "1/x.dcm" and looking[2][at] is not None:
                times += 1
                looking[2][at].cancel()
                looking[2][at] = self.pool.submit(_time_out)
        return looked(self, looking)

    monkeypatch.setattr(look.Looker, "_facts", losing)
    commit = Ledger.commit

    def stop(self: Ledger, result: Any) -> None:
        raise Stopped

    monkeypatch.setattr(Ledger, "commit", stop)
    with pytest.raises(Stopped):
        run(root, tmp_path / "out", pack)
    monkeypatch.setattr(Ledger, "commit", commit)
    files = rows(run(root, tmp_path / "out", pack))
    assert (files["1/x.dcm"]["status"], files["1/x.dcm"]["reason"]) == ("failed", "timeout")
    assert times == 1
    assert sum(row["status"] == "scored" for row in files.values()) == 13


def _time_out() -> None:
    raise MedclipError(Reason.TIMEOUT, "reading took longer than 1 s and was stopped.")


def test_failed_files_are_tried_again_where_that_is_asked(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = scattered(tmp_path / "in")
    before = run(root, tmp_path / "out", pack)
    assert before.counts["failed"] == 2
    write_dicom(root / "3" / "cut.dcm", 41, study_uid=f"{STUDY_UID}.1")
    with pytest.raises(MedclipError, match="1 scored file has changed"):
        run(root, tmp_path / "out", pack)
    seen = count_looks(monkeypatch)
    progress = Recorded()
    after: Any = retry(tmp_path / "out", reason="truncated", progress=progress)
    files = rows(after)
    assert progress.stages[0] == ("Reading and scoring", 16, 12), "its study's other three are scored again, too"
    assert sum(number for number, _ in progress.steps) == 4 + 1, "files, and the report"
    assert after.counts["failed"] == 1
    assert files["3/cut.dcm"]["status"] == "scored"
    odd = [row for row in after.scores.to_pylist() if row["study"] == files["3/cut.dcm"]["study"]]
    assert {(row["num_images"], row["num_failed"]) for row in odd} == {(4, 0)}
    assert {name for name, _ in seen} == {"3/cut.dcm", "1/x.dcm", "3/x.dcm", "5/x.dcm"}
    undisturbed = run(root, tmp_path / "whole", pack)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole") or after.scores == undisturbed.scores


def test_files_that_came_are_refused_or_added_and_the_old_rows_stay(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = scattered(tmp_path / "in")
    before = run(root, tmp_path / "out", pack)
    old, old_scores = rows(before), before.scores.to_pylist()
    write_dicom(root / "1" / "y.dcm", 50, study_uid=f"{STUDY_UID}.1")
    write_dicom(root / "new" / "z.dcm", 51, study_uid=f"{STUDY_UID}.77")
    with pytest.raises(MedclipError, match=r"2 files came since .* --add") as caught:
        run(root, tmp_path / "out", pack)
    assert caught.value.reason is Reason.OUTPUT_IN_USE
    after = run(root, tmp_path / "out", pack, add=True)
    files = rows(after)
    assert set(files) - set(old) == {"1/y.dcm", "new/z.dcm"}
    assert "2 files came later and were added" in (tmp_path / "out" / "report.html").read_text()
    assert json.loads((tmp_path / "out" / "run.json").read_text())["input"]["num_added"] == 2
    assert [row["row"] for row in files.values()] == list(range(1, 19))
    grown = files["1/y.dcm"]["study"]
    kept = [row for row in old_scores if row["study"] != grown]
    assert kept == [row for row in after.scores.to_pylist() if row["study"] in {r["study"] for r in kept}]
    assert {row["num_images"] for row in after.scores.to_pylist() if row["study"] == grown} == {4}
    assert run(root, tmp_path / "out", pack).already_finished
    shutil.rmtree(root / "new")  # what was archived keeps its row
    assert run(root, tmp_path / "out", pack).already_finished


def test_files_that_are_added_are_counted_once_wherever_the_call_is_stopped(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_windows: None
) -> None:
    root, out = scattered(tmp_path / "in"), tmp_path / "out"
    run(root, out, pack)
    for n in range(8):
        write_png(root / "1" / f"new{n}.png", 60 + n)
    register, budget = Ledger.register, 0

    def stopping(self: Ledger, *values: Any, **named: Any) -> Any:
        nonlocal budget
        budget -= 1
        if budget < 0:
            raise Stopped
        return register(self, *values, **named)

    monkeypatch.setattr(Ledger, "register", stopping)
    for stop in (0, 1, 0, 1):
        budget = stop
        with pytest.raises(Stopped):
            run(root, out, pack, add=True)
    budget = 99
    run(root, out, pack, add=True)
    assert json.loads((out / "run.json").read_text())["input"]["num_added"] == 8


def test_the_folder_of_a_run_over_other_files_is_refused(pack: Path, tmp_path: Path, small_windows: None) -> None:
    run(scattered(tmp_path / "in"), tmp_path / "out", pack)
    write_png(tmp_path / "other" / "a.png", 1)
    with pytest.raises(MedclipError, match="a run over other files"):
        run(tmp_path / "other", tmp_path / "out", pack)
    shutil.copytree(tmp_path / "in" / "flat", tmp_path / "some" / "flat")  # some of the same files, elsewhere
    for some in (tmp_path / "some", tmp_path / "in" / "flat" / "0.dcm"):
        with pytest.raises(MedclipError, match="a run over other files"):
            run(some, tmp_path / "out", pack)
    with Ledger(tmp_path / "out", create=False) as ledger:
        num_listed = ledger.num_listed()
    for n in range(2 * listing.CUT_FILES):
        write_png(tmp_path / "some" / "flat" / f"{n}.png", 50 + n)
    with pytest.raises(MedclipError, match="a run over other files"):  # before any of them is taken in
        run(tmp_path / "some", tmp_path / "out", pack, add=True)
    with Ledger(tmp_path / "out", create=False) as ledger:
        assert ledger.num_listed() == num_listed
    (tmp_path / "in").rename(tmp_path / "moved")  # all of them, elsewhere
    assert run(tmp_path / "moved", tmp_path / "out", pack).already_finished


def test_a_file_that_is_replaced_between_looking_and_reading_is_not_scored(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "in"
    for n in range(3):
        write_dicom(root / f"{n}.dcm", n, study_uid=f"{STUDY_UID}.{n}")
    make = look.Looker._make

    def replacing(self: Any, window: Any, facts: Any, **how: Any) -> Any:
        if (root / "2.dcm").exists():
            os.replace(root / "2.dcm", root / "1.dcm")
        return make(self, window, facts, **how)

    monkeypatch.setattr(look.Looker, "_make", replacing)
    files = rows(run(root, tmp_path / "out", pack))
    assert {name: (row["status"], row["reason"]) for name, row in files.items()} == {
        "0.dcm": ("scored", None),
        "1.dcm": ("failed", "changed"),
        "2.dcm": ("failed", "changed"),
    }


def test_the_same_image_counts_once_in_its_study(pack: Path, tmp_path: Path) -> None:
    single, copied = tmp_path / "single", tmp_path / "copied"
    for root in (single, copied):
        write_dicom(root / "a.dcm", 1)
        write_dicom(root / "b.dcm", 2)
    shutil.copy(copied / "a.dcm", copied / "c.dcm")
    (copied / "d.dcm").symlink_to(copied / "a.dcm")
    one, other = run(single, tmp_path / "one", pack), run(copied, tmp_path / "other", pack)
    files = rows(other)
    for name in ("c.dcm", "d.dcm"):
        assert (files[name]["status"], files[name]["reason"]) == ("skipped", "duplicate")
        assert files[name]["copy_of"] == files["a.dcm"]["row"]
    assert one.scores.column("probability") == other.scores.column("probability")
    assert set(other.scores.column("num_files").to_pylist()) == {2}


def test_a_copy_counts_where_the_image_that_counted_cannot_be_read(pack: Path, tmp_path: Path) -> None:
    single, copied = tmp_path / "single", tmp_path / "copied"
    for root in (single, copied):
        write_dicom(root / "b.dcm", 1)
        write_dicom(root / "x.dcm", 2)
    data = pydicom.dcmread(copied / "b.dcm")
    data.ImageComments = "a copy"
    data.save_as(copied / "c.dcm")
    data.compress(RLELossless, generate_instance_uid=False)
    frame = get_frame(data.PixelData, 0, number_of_frames=1)
    data.PixelData = encapsulate([frame[: len(frame) // 4 * 2]])
    data.save_as(copied / "a.dcm")  # the first by name, and the only one of its transfer syntax
    (copied / "e.dcm").symlink_to(copied / "a.dcm")
    one, other = run(single, tmp_path / "one", pack), run(copied, tmp_path / "other", pack)
    files = rows(other)
    assert {name: (row["status"], row["copy_of"]) for name, row in files.items()} == {
        "a.dcm": ("failed", None),
        "b.dcm": ("scored", None),
        "c.dcm": ("skipped", files["b.dcm"]["row"]),
        "e.dcm": ("skipped", files["b.dcm"]["row"]),
        "x.dcm": ("scored", None),
    }
    assert one.scores.column("probability") == other.scores.column("probability")
    assert set(other.scores.column("num_failed").to_pylist()) == {1}


def test_a_copy_of_an_image_that_cannot_be_read_is_asked_for_its_task_like_every_other(
    pack: Path, tmp_path: Path
) -> None:
    root = tmp_path / "in"
    write_dicom(root / "b.dcm", 1)
    data = pydicom.dcmread(root / "b.dcm")
    data.BodyPartExamined = "HAND"
    data.save_as(root / "b.dcm")
    data.compress(RLELossless, generate_instance_uid=False)
    frame = get_frame(data.PixelData, 0, number_of_frames=1)
    data.PixelData = encapsulate([frame[: len(frame) // 4 * 2]])
    data.save_as(root / "a.dcm")
    result = run(root, tmp_path / "out", pack, task="chest_xray_view")
    assert {name: row["status"] for name, row in rows(result).items()} == {"a.dcm": "failed", "b.dcm": "skipped"}
    assert result.scores.num_rows == 0


def test_a_result_that_was_lost_or_changed_is_written_again(pack: Path, tmp_path: Path) -> None:
    root, out = scattered(tmp_path / "in"), tmp_path / "out"
    run(root, out, pack)
    before = digests(out)
    (out / "scores.parquet").write_bytes(b"half a table")
    (out / "report.html").unlink()
    assert not run(root, out, pack).already_finished
    assert digests(out) == before
    assert run(root, out, pack).already_finished


def test_two_prompts_are_two_classes_of_one_task_and_the_scores_name_their_opposites(
    pack: Path, tmp_path: Path
) -> None:
    write_dicom(tmp_path / "in" / "a.dcm", 1)
    both = run(tmp_path / "in", tmp_path / "out", pack, prompt=["a pacemaker", "a fracture"])
    classes = {row["class"]: (row["task"], row["against"]) for row in both.scores.to_pylist()}
    assert classes == {"a pacemaker": ("prompt", "no pacemaker"), "a fracture": ("prompt", "no fracture")}
    with pytest.raises(MedclipError, match="come in pairs"):
        run(tmp_path / "in", tmp_path / "x", pack, prompt=["a", "b"], against=["c"])


def test_hashed_paths_leave_no_name_anywhere_and_the_run_can_still_grow(pack: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    write_png(root / "Curie Marie" / "film of Marie.png", 1)
    write_dicom(root / "Curie Marie" / "1.dcm", 2, study_uid=f"{STUDY_UID}.5")
    options: dict[str, Any] = {"hash_paths": True, "modality": "xray"}
    first = run(root, out, pack, **options)
    names = list(rows(first))
    assert len(set(names)) == 2
    assert all(re.fullmatch("path:[0-9a-f]{16}", name) for name in names)
    assert all(name in names for row in first.scores.to_pylist() for name in json.loads(row["files"]))
    for path in out.iterdir():
        assert b"Curie" not in path.read_bytes()
        assert b"Marie" not in path.read_bytes()
    assert run(root, out, pack, **options).already_finished
    os.utime(root / "Curie Marie" / "1.dcm")  # touched, and the same
    assert run(root, out, pack, **options).already_finished
    write_dicom(root / "Curie Marie" / "2.dcm", 3, study_uid=f"{STUDY_UID}.5")
    with pytest.raises(MedclipError, match="1 file came since"):
        run(root, out, pack, **options)
    grown = run(root, out, pack, add=True, **options)
    assert set(names) < set(rows(grown))
    assert json.loads((out / "run.json").read_text())["input"]["num_added"] == 1
    with Ledger(out) as ledger:  # as a call leaves it that is stopped when files have their names back
        key, files = load_key(Settings()), [f"Curie Marie/{name}" for name in ("film of Marie.png", "1.dcm", "2.dcm")]
        ledger.name_again([(name, hashed_path(name, key)) for name in files])
    assert b"Curie" in b"".join(path.read_bytes() for path in out.iterdir())
    assert run(root, out, pack, **options).counts == grown.counts
    assert {row["num_images"] for row in grown.scores.to_pylist() if row["num_files"] == 2} == {2}
    assert not any(b"Curie" in path.read_bytes() for path in out.iterdir())
    with pytest.raises(MedclipError, match="--hash-paths"):
        run(root, out, pack, modality="xray")
    with pytest.raises(MedclipError, match="Choose one"):
        run(root, tmp_path / "x", pack, report={"report_paths": True}, **options)


def test_early_rows_stand_in_parts_until_the_tables_are_written(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_windows: None
) -> None:
    root, out = scattered(tmp_path / "in"), tmp_path / "out"
    monkeypatch.setattr(results, "PART_SECONDS", 0.0)
    commit, num_commits = Ledger.commit, 0

    def stopping(self: Ledger, result: Any) -> Any:
        nonlocal num_commits
        num_commits += 1
        if num_commits == 6:
            raise Stopped
        return commit(self, result)

    monkeypatch.setattr(Ledger, "commit", stopping)
    with pytest.raises(Stopped):
        run(root, out, pack)
    assert not (out / "scores.parquet").exists()
    early = [row for path in sorted((out / "parts").glob("files-*")) for row in pq.read_table(path).to_pylist()]
    assert len(early) == 5
    scores = [row for path in sorted((out / "parts").glob("scores-*")) for row in pq.read_table(path).to_pylist()]
    assert {json.loads(row["files"])[0] for row in scores} <= {row["path"] for row in early}
    finished = run(root, out, pack)
    assert not (out / "parts").exists()
    assert {row["path"] for row in early} <= set(rows(finished))


def test_without_thumbnails_none_is_kept(pack: Path, tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "a.dcm", 1)
    run(tmp_path / "in", tmp_path / "out", pack, thumbnails=False)
    with Ledger(tmp_path / "out", create=False) as ledger:
        assert ledger.thumbnail(1) is None
    text = (tmp_path / "out" / "report.html").read_text()
    assert "data:image" not in text
    assert "withheld" not in text.split("<body")[1]
