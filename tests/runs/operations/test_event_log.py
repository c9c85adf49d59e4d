"""The log of a run as JSON lines."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from medclip.errors import MedclipError, Reason
from medclip.runs.operations.watch import EventLog


def test_each_event_is_a_line_that_names_its_time_and_its_call(tmp_path: Path):
    path = tmp_path / "logs" / "night.jsonl"
    noon = datetime(2026, 11, 28, 13, 0, tzinfo=timezone(timedelta(hours=1)))
    for number in range(2):
        log = EventLog(path, lambda: noon)
        log.write("run_started", files_done=number)
        log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["files_done"] for line in lines] == [0, 1], "a second call goes on with the file"
    assert {line["time"] for line in lines} == {"2026-11-28T12:00:00.000Z"}
    assert len({line["run"] for line in lines}) == 2
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_log_that_can_be_written_no_more_costs_nothing(tmp_path: Path):
    log = EventLog(Path("/dev/full"), lambda: datetime.now(UTC))
    log.write("run_started")
    log.close()


def test_a_place_where_no_log_can_be_is_refused_before_the_run(tmp_path: Path):
    os.mkdir(tmp_path / "folder")
    for place in (tmp_path / "folder", Path("/proc/none/night.jsonl")):
        with pytest.raises(MedclipError) as refused:
            EventLog(place)
        assert refused.value.reason in (Reason.WRONG_USE, Reason.PERMISSION_DENIED)


def test_a_file_that_is_no_log_is_refused_and_keeps_its_bytes(tmp_path: Path):
    film = tmp_path / "film.dcm"
    film.write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(MedclipError, match="no log of medclip") as refused:
        EventLog(film)
    assert refused.value.reason is Reason.WRONG_USE
    assert film.read_bytes() == b"\0" * 128 + b"DICM"
    (tmp_path / "empty.jsonl").touch()
    EventLog(tmp_path / "empty.jsonl").close()


def test_a_group_may_read_a_log_where_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MEDCLIP_SHARE", "group")
    EventLog(tmp_path / "night.jsonl").close()
    assert (tmp_path / "night.jsonl").stat().st_mode & 0o777 == 0o640
