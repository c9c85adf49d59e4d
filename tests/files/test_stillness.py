"""Which files of a folder that others write to have come whole."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from medclip.files.discover import Stillness


@dataclass
class Clock:
    """Begins at the file system's own time, since files take theirs from it."""

    at: float

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    (tmp_path / "now").touch()
    at = os.stat(tmp_path / "now").st_ctime
    (tmp_path / "now").unlink()
    return Clock(at)


def put(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_moves_until_nothing_has_touched_it_for_a_while(tmp_path: Path, clock: Clock) -> None:
    stillness = Stillness(tmp_path, 10, now=clock)
    file = put(tmp_path / "a.dcm")
    assert stillness.look().moving == (file,)
    clock.at += 11
    look = stillness.look()
    assert (look.moving, look.num_still) == ((), 1)
    assert stillness.look().digest == look.digest


def test_a_file_that_grows_moves_again_and_the_digest_tells_of_it(tmp_path: Path, clock: Clock) -> None:
    stillness = Stillness(tmp_path, 10, now=clock)
    file = put(tmp_path / "a.dcm")
    clock.at += 11
    before = stillness.look()
    put(file, "longer")
    os.utime(file, (1, 1))  # as a copy that keeps times: the time of status change tells of it
    clock.at -= 5
    assert stillness.look().moving == (file,)
    clock.at += 11
    assert stillness.look().digest != before.digest


def test_a_folder_waits_with_its_moving_file_and_other_folders_do_not(tmp_path: Path, clock: Clock) -> None:
    put(tmp_path / "study" / "1.dcm")
    put(tmp_path / "other" / "1.dcm")
    time.sleep(0.3)
    late = put(tmp_path / "study" / "2.dcm")
    clock.at = os.stat(late).st_ctime + 0.05
    look = Stillness(tmp_path, 0.2, now=clock).look()
    assert set(look.moving) == {late, tmp_path / "study"}
    assert look.num_still == 1


def test_a_folder_that_something_always_comes_into_waits_file_by_file_in_the_end(tmp_path: Path, clock: Clock) -> None:
    stillness = Stillness(tmp_path, 0.02, now=clock)
    looks = []
    for number in range(8):
        file = put(tmp_path / "day" / f"{number}.dcm")
        clock.at = os.stat(file).st_ctime + 0.001
        looks.append(stillness.look())
        time.sleep(0.1)
    assert looks[1].num_still == 0
    assert looks[-1].num_still == 7
    assert looks[-1].moving == (tmp_path / "day" / "7.dcm",)


def test_files_of_a_drive_whose_clock_is_ahead_are_still_once_they_were_seen_unchanged(
    tmp_path: Path, clock: Clock
) -> None:
    put(tmp_path / "a.dcm")
    clock.at -= 3600
    stillness = Stillness(tmp_path, 10, now=clock)
    assert stillness.look().moving
    clock.at += 9
    assert stillness.look().moving
    clock.at += 2
    assert not stillness.look().moving


def test_an_output_folder_in_the_watched_one_is_no_part_of_it(tmp_path: Path, clock: Clock) -> None:
    put(tmp_path / "out" / "files.parquet")
    assert Stillness(tmp_path, 10, (tmp_path / "out",), clock).look().moving == ()


def test_what_has_no_real_name_yet_is_left_out_and_holds_its_folder_back_while_it_moves(
    tmp_path: Path, clock: Clock
) -> None:
    put(tmp_path / "a.dcm")
    put(tmp_path / "study" / "1.dcm")
    draft, copier = put(tmp_path / "study" / "2.dcm.part"), put(tmp_path / ".~tmp~" / "b" / "3.dcm")
    stillness = Stillness(tmp_path, 10, now=clock)
    look = stillness.look()
    assert set(look.waiting) == {draft, tmp_path / ".~tmp~"}
    assert (look.num_still, look.num_waiting) == (0, 0)
    clock.at += 5
    os.utime(draft)
    clock.at += 6
    stillness = Stillness(tmp_path, 10, now=lambda: clock.at if clock.at < 1 else os.stat(draft).st_ctime + 9)
    look = stillness.look()
    assert tmp_path / "study" in look.moving
    clock.at = os.stat(draft).st_ctime + 11
    look = Stillness(tmp_path, 10, now=clock).look()
    assert (look.moving, look.num_still, look.num_waiting) == ((), 2, 2)
    draft.rename(draft.with_suffix(""))
    copier.rename(tmp_path / "3.dcm")
    look = Stillness(tmp_path, 0, now=clock).look()
    assert (look.waiting, look.num_still) == ((), 4)


def test_a_hidden_link_hides_nothing_that_it_leads_to(tmp_path: Path, clock: Clock) -> None:
    put(tmp_path / "study" / "1.dcm")
    (tmp_path / ".newest").symlink_to("study")
    (tmp_path / ".1.dcm").symlink_to("study/1.dcm")
    look = Stillness(tmp_path, 0, now=clock).look()
    assert (look.waiting, look.num_still) == ((), 3)
