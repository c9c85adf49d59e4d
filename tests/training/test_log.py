"""The log is one JSON object a line, and people see figures that they can read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medclip.errors import MedclipError, Reason
from medclip.training.result import RunLog, cut_log, read_log
from tests.kits.progress import Recorded

STEP = {"step": 3, "loss": 1.23456789, "lr": 5e-5, "images_s": 143.2, "data_wait": 3.18427e-05}


def test_the_log_keeps_its_keys_and_six_figures(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 10, 0, Recorded())
    log.write("step", STEP)
    log.close()
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {
        "kind": "step",
        "step": 3,
        "loss": 1.23457,
        "lr": 5e-5,
        "images_s": 143.2,
        "data_wait": 3.18427e-05,
    }


def test_people_see_figures_without_powers_of_ten(tmp_path: Path) -> None:
    shown = Recorded()
    log = RunLog(tmp_path, 10, 2, shown)
    log.write("step", STEP)
    log.write("val", {"step": 3, "val_loss": 0.512345})
    log.write("skip", {"step": 1204, "loss": "nan", "grad_norm": "inf"})
    log.write("bad", {"step": 4, "truncated": 2})
    log.write("note", {"step": 4, "note": "the split has few samples"})
    log.close()
    assert shown.stages == [("Training", 10, 2)]
    assert shown.steps == [(1, "loss 1.235, lr 0.00005, 143 images/s, < 1 % waiting for data")]
    assert shown.notes == [
        "Validation after step 3: val loss 0.5123",
        "Left out step 1,204: loss nan, grad norm inf",
        "Samples that could not be read until step 4: truncated 2",
        "The split has few samples.",
    ]


def test_where_a_run_went_on_is_in_the_log_and_a_run_that_begins_has_no_such_entry(tmp_path: Path) -> None:
    shown = Recorded()
    RunLog(tmp_path, 10, 0, shown).close()
    assert read_log(tmp_path / "log.jsonl") == []
    RunLog(tmp_path, 10, 4, shown).close()
    assert read_log(tmp_path / "log.jsonl") == [{"kind": "resume", "step": 4}]
    assert not shown.notes


def test_ranks_after_the_first_write_and_show_nothing(tmp_path: Path) -> None:
    shown = Recorded()
    log = RunLog(tmp_path, 10, 0, shown, write=False)
    log.write("step", STEP)
    log.close()
    assert not shown.stages
    assert not shown.steps
    assert not list(tmp_path.iterdir())


def test_cutting_drops_later_steps_and_a_broken_last_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"kind": "step", "step": s}) + "\n" for s in (1, 2, 3, 4)) + '{"kind')
    cut_log(path, 2)
    assert [e["step"] for e in read_log(path)] == [1, 2]
    cut_log(tmp_path / "new.jsonl", 0)
    assert read_log(tmp_path / "new.jsonl") == []


def test_steps_without_an_entry_count_towards_the_remaining_time(tmp_path: Path) -> None:
    shown = Recorded()
    log = RunLog(tmp_path, 10, 0, shown)
    for step in (1, 2, 3):
        log.reach(step)
    log.write("step", {"step": 4, "loss": 1.0, "images_s": 3.0})
    log.close()
    assert sum(count for count, _ in shown.steps) == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
def test_a_disk_that_is_full_is_one_sentence_and_closing_does_not_hide_it(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    log = RunLog(tmp_path, 10, 0, Recorded())
    with pytest.raises(MedclipError) as caught:
        log.write("step", STEP)
    assert (caught.value.reason, caught.value.where) == (Reason.DISK_FULL, str(tmp_path / "log.jsonl"))
    log.close()
