"""Files by window: what is written down of them, taken back and counted."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from medclip.errors import Problem, Reason
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.rows import DONE, DONE_FOR_GOOD, ChunkResult, Effort, FileRow, Look, ScoreRow, Thumbnail
from medclip.sample import FileRef, Stamp
from tests.kits.ledger import fill_ledger


def _refs(*names: str) -> list[FileRef]:
    return [FileRef(Path(name), name, 5, None, Stamp(5, 1, 1)) for name in names]


def _row(index: int, study: str, status: str = "scored", reason: str | None = None) -> FileRow:
    return FileRow(index, f"{index}.png", "0" * 64, 5, "png", status, reason, None, study=study)


def _scores(*studies: str) -> list[ScoreRow]:
    return [ScoreRow(study, None, "xray", "t", "c", "multilabel", 0.5, 0.0, 1, "m", "1", "p") for study in studies]


def test_the_place_of_the_walk_and_late_files_are_kept_only_where_they_are_stated(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        files = ledger.register(_refs("a", "b"))
        assert [(file.name, file.window, file.cut) for file in files] == [("a", 0, False), ("b", 0, False)]
        assert ledger.get("frontier") is None
        assert ledger.get("added") is None
        ledger.register(_refs("c"), cut=True, frontier=["c"], added=True)
        ledger.register(_refs("d", "e"), added=True)
        assert ledger.get("frontier") == ["c"]
        assert ledger.get("added") == 3
        assert [file.cut for file in ledger.window(1)] == [True]


def test_names_below_a_folder_are_its_own_and_sorted(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.register(_refs("a/2", "a/1/x", "a", "ab", "b/1"))
        assert ledger.names_below("a/") == ["a/1/x", "a/2"]


def test_counts_are_of_files_that_there_are_that_were_tried_again_and_that_failed(tmp_path: Path) -> None:
    gone = FileRef(Path("gone"), "gone", problem=Problem(Reason.MISSING_FILE, "it is not there"))
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, [_row(1, "s"), _row(2, "s", "failed", "corrupt"), _row(3, "t", "failed", "empty")])
        (missing,) = ledger.register([gone])
        assert missing.problem == gone.problem
        assert (ledger.num_listed(), ledger.num_files(), ledger.num_done()) == (4, 3, 3)
        assert (ledger.failed_ids(None), ledger.failed_ids("empty")) == ([2, 3], [3])
        assert ledger.num_tried_again() == 0
        looks = [
            Look(file.id, file.stamp, "1" * 64, "png", effort=Effort(num_retries=retries, seconds=2.0, worker=worker))
            for file, retries, worker in zip(ledger.window(0), (2, 0, 0), ("w1", "", "w1"), strict=True)
        ]
        ledger.looked_at(looks)
        assert ledger.num_tried_again() == 1
        assert ledger.work_by_worker() == {"w1": (2, 4.0)}


def test_the_digest_is_of_names_sizes_and_hashes_by_name(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        second, first = ledger.register(_refs("b", "a"))
        ledger.looked_at([Look(second.id, Stamp(7, 1, 1), "f" * 64, "png")])
        assert first.name == "a"
        lines = "a|5|\n" + f"b|7|{'f' * 64}\n"
        expected = hashlib.sha256(lines.replace("|", chr(0)).encode())
        assert ledger.digest() == expected.hexdigest()


def test_a_study_over_several_windows_waits_and_is_named_once(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        (a,), (b,), (c,) = (ledger.register(_refs(name)) for name in ("a", "b", "c"))
        ledger.tie([(a.id, "torn", False), (b.id, "torn", False), (c.id, "alone", False)])
        assert ledger.open_windows() == [2]
        assert ledger.late_ties() == ["torn"]
        assert [file.name for file in ledger.files_of_tie("torn")] == ["a", "b"]
        assert [ledger.tied_before("torn", window) for window in (0, 1)] == [False, True]
        assert not ledger.tied_before("alone", 2)


def test_what_a_file_held_goes_with_its_row_and_the_scores_of_its_study_when_it_comes_again(tmp_path: Path) -> None:
    files = [_row(1, "s"), _row(2, "s"), _row(3, "t")]
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, files, _scores("s", "t"), [Thumbnail(n, b"j", False) for n in (1, 2, 3)])
        (first, *_) = ledger.window(0)
        changed = replace(_refs("1.png")[0], stamp=Stamp(9, 2, 2))
        ledger.open_again({first.id: changed})
        assert ledger.counts()["files"] == 2
        assert ledger.thumbnail(1) is None
        assert ledger.thumbnail(2) is not None
        assert (ledger.scores_of("s"), len(ledger.scores_of("t"))) == ([], 1)
        (again,) = ledger.window(1)
        assert (again.name, again.stamp, again.sha256) == ("1.png", Stamp(9, 2, 2), None)
        assert again.state < DONE


def test_very_many_files_that_come_again_are_looked_at_in_several_windows(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        files = ledger.register(_refs(*(f"{n:04}" for n in range(1025))))
        ledger.open_again({file.id: None for file in files})
        assert [len(ledger.window(window)) for window in range(5)] == [0, 512, 512, 1, 0]
        assert ledger.open_windows() == [1, 2, 3]


def test_files_that_are_gone_are_settled_by_what_came_and_others_stay(tmp_path: Path) -> None:
    stamps = {
        **{
            "same bytes": Stamp(5, 1, 1),
            "its copy": Stamp(5, 2, 2),
            "same uid": Stamp(3, 3, 3),
            "sent.dcm": Stamp(9, 4, 4),
        },
        **{"moved": Stamp(7, 5, 5), "b/moved": Stamp(7, 5, 5), "x.part": Stamp(0, 6, 6), "x.dcm": Stamp(9, 7, 7)},
        **{
            "empty": Stamp(0, 8, 8),
            "empty too": Stamp(0, 9, 9),
            "other": Stamp(1, 10, 10),
            "both gone": Stamp(2, 11, 11),
        },
        **{"gone as well": Stamp(2, 12, 12), "never there": Stamp(0, 0, 0)},
    }
    bytes_of = {
        "same bytes": "a",
        "its copy": "a",
        "empty": "e",
        "empty too": "e",
        "both gone": "b",
        "gone as well": "b",
    }
    uids = {"same uid": "1", "sent.dcm": "1", "other": "2"}
    with Ledger(tmp_path) as ledger:
        refs = [FileRef(Path(name), name, stamp.size_bytes, None, stamp) for name, stamp in stamps.items()]
        files = {file.name: file for file in ledger.register(refs)}
        ledger.looked_at(
            Look(file.id, file.stamp, bytes_of.get(name, ""), "dicom", uids.get(name)) for name, file in files.items()
        )
        assert {file.name for file in ledger.unsettled()} == set(stamps)  # none has a row
        stays = ["empty", "other", "both gone", "gone as well", "never there"]
        ledger.settle([files[name] for name in ("same bytes", "same uid", "moved", "x.part", *stays)])
        assert sorted(ledger.names_below("")) == sorted(
            ["its copy", "sent.dcm", "b/moved", "x.dcm", "empty too", *stays]
        )


def test_a_row_that_was_settled_while_its_chunk_was_under_way_does_not_come_back(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        fill_ledger(ledger, [_row(1, "s", "failed", "truncated"), _row(2, "s")], _scores("s"))
        first, second = ledger.window(0)
        ledger.tie([(first.id, "tie", False), (second.id, "tie", False)])
        ledger.settle([replace(first, name="1.png")])  # both have one stamp in this ledger
        assert ledger.scores_of("s") == []
        assert ledger.late_ties() == ["tie"]
        fate = [replace(_row(1, "s", "failed", "truncated"), row=first.id), replace(_row(2, "s"), row=second.id)]
        ledger.commit(ChunkResult(tuple(fate), tuple(_scores("s")), (), DONE_FOR_GOOD))
        ledger.number()
        assert [row.path for row in ledger.files()] == ["2.png"]
        assert ledger.counts()["files"] == ledger.num_listed() == 1
