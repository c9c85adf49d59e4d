"""A run whose model takes long to load: images are read meanwhile, as far as memory allows."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from medclip.errors import MedclipError, Reason
from medclip.files.readers.pool import ReadingPool
from medclip.runs import chunk, conduct
from medclip.runs.read_unit import read
from tests.kits.scoring import digests, write_dicom
from tests.runs.test_nights import run

NUM_FILES = 9


@pytest.fixture
def films(tmp_path: Path) -> Path:
    for n in range(NUM_FILES):
        write_dicom(tmp_path / "in" / f"{n}.dcm", n, study_uid=f"2.25.{n}")
    return tmp_path / "in"


def load_after_readings(monkeypatch: pytest.MonkeyPatch, num_readings: int) -> list[int]:
    """Have the model loaded once so many readings were asked for; the list gets their number at that time."""
    submit, load = ReadingPool.submit, conduct.load_run_model
    enough, asked, at_load = threading.Event(), [], []

    def counted(pool: ReadingPool, function: Any, *arguments: Any, **options: Any) -> Any:
        if function is read:
            asked.append(arguments)
            if len(asked) >= num_readings:
                enough.set()
        return submit(pool, function, *arguments, **options)

    def late(*arguments: Any) -> Any:
        enough.wait(60)
        at_load.append(len(asked))
        return load(*arguments)

    monkeypatch.setattr(ReadingPool, "submit", counted)
    monkeypatch.setattr(conduct, "load_run_model", late)
    return at_load


def test_images_are_read_while_the_model_is_loaded_and_the_tables_are_the_same(
    pack: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(films, tmp_path / "usual", pack)
    monkeypatch.setattr(chunk, "READ_AHEAD", 1)
    at_load = load_after_readings(monkeypatch, NUM_FILES)
    run(films, tmp_path / "late", pack)
    assert at_load == [NUM_FILES]
    assert digests(tmp_path / "late") == digests(tmp_path / "usual")


@pytest.mark.parametrize(
    ("limit", "value", "num_readings"), [("_AHEAD_WHILE_LOADING", 4, 4), ("_BYTES_WHILE_LOADING", 1, 1)]
)
def test_no_more_is_read_ahead_than_memory_is_meant_for(
    pack: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, num_readings: int
) -> None:
    monkeypatch.setattr(chunk, "READ_AHEAD", 1)
    monkeypatch.setattr(chunk, limit, value)
    at_load = load_after_readings(monkeypatch, num_readings)
    run(films, tmp_path / "out", pack)
    assert at_load == [num_readings]


def test_a_model_that_cannot_be_loaded_ends_the_run_with_its_reason(
    pack: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise MedclipError(Reason.PACK_INVALID, "the weights do not fit.")

    with monkeypatch.context() as patched:
        patched.setattr(conduct, "load_run_model", fail)
        with pytest.raises(MedclipError, match="the weights do not fit") as caught:
            run(films, tmp_path / "out", pack)
    assert caught.value.reason is Reason.PACK_INVALID
    assert run(films, tmp_path / "out", pack).counts["scored"] == NUM_FILES
