"""Whatever Ray does, a run goes on or has one sentence; a package that stands for Ray fails in the ways it does."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from medclip.errors import MedclipError, Reason
from medclip.exit_codes import ExitCode, exit_code
from medclip.runs.engines import ray_connection
from medclip.runs.engines.ray_connection import Connection, WorkerLostError, connected

_RAY = """
import os, pathlib, sys, time
from concurrent.futures import Future
from types import SimpleNamespace
from ray import exceptions

LOG = pathlib.Path(__file__).parents[1] / "starts"

def init(**how):
    ways = LOG.read_text().split()
    LOG.write_text(" ".join(ways[1:]))
    (LOG.parent / "began").touch()
    match ways[0]:
        case "error": raise RuntimeError("a header")
        case "address": raise ValueError("no address")
        case "exit": os._exit(7)
        case "sys.exit": sys.exit(15)
        case "hang": time.sleep(600)

def shutdown(): (LOG.parent / "left").touch()
def nodes(): return [{"Alive": True, "Resources": {"CPU": 2.0}}]

def remote(**options):
    return lambda kind: SimpleNamespace(remote=lambda *content: _handle(kind(*content)))

def _handle(host):
    def call(content):
        future = Future()
        try: future.set_result(host.call(content))
        except SystemExit: os._exit(1)
        except Exception as error:
            known = {"lost": exceptions.NodeDiedError, "other": exceptions.RaySystemError}
            future.set_exception(known.get(str(error), exceptions.RayTaskError)(str(error)))
        return SimpleNamespace(future=lambda: future)
    return SimpleNamespace(call=SimpleNamespace(remote=call))
"""
_EXCEPTIONS = """
class RaySystemError(Exception): pass
class RayTaskError(Exception): pass
class RayActorError(Exception): pass
class OutOfMemoryError(Exception): pass
class NodeDiedError(Exception): pass
class WorkerCrashedError(Exception): pass
class ObjectLostError(Exception): pass
"""


class Adder:
    """Adds to a number."""

    def __init__(self, number: int) -> None:
        self._number = number

    def add(self, number: int) -> int:
        """Return the sum."""
        return self._number + number

    def fail(self, word: str) -> None:
        """Raise an error."""
        raise RuntimeError(word)

    def leave(self) -> None:
        """End the process."""
        raise SystemExit


@pytest.fixture
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file with the ways that Ray starts, one after the other; temporary folders lie beside it."""
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text(_RAY)
    (tmp_path / "ray" / "exceptions.py").write_text(_EXCEPTIONS)
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    monkeypatch.setattr(ray_connection, "PAUSES_S", (0.0, 0.0))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield tmp_path / "starts"
    assert os.listdir(tmp_path / "temp") == []
    assert ray_connection._current is None


def _adder(ray: Connection) -> ray_connection.Worker:
    return ray.remote(num_cpus=0)(Adder).remote(40)


def test_a_start_that_fails_is_tried_again_and_then_calls_are_answered(starts: Path) -> None:
    starts.write_text("error exit fine")
    notes: list[str] = []
    with connected(notes.append) as ray:
        refs = [_adder(ray).add.remote(number) for number in range(3)]
        assert [ray.get(ref) for ref in refs] == [40, 41, 42]
        with connected() as inner:
            assert inner is ray
        assert ray.nodes() == [{"Alive": True, "Resources": {"CPU": 2.0}}]
    assert notes == [
        "Ray did not start (RuntimeError); it is tried again in 0 s, with 120 s to start in.",
        "Ray did not start (it ended); it is tried again in 0 s, with 240 s to start in.",
    ]


def test_a_ray_that_does_not_start_ends_the_command_with_a_sentence_and_the_code_of_what_goes_on_later(
    starts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_connection, "STARTS_S", (60.0, 60.0, 0.5))
    starts.write_text("sys.exit error hang")
    with (
        pytest.raises(MedclipError, match=r"the engine Ray did not start in 3 tries \(no answer in 0\.5 s\)") as error,
        connected(),
    ):
        pass
    assert exit_code(error.value.reason) is ExitCode.INCOMPLETE
    assert "a header" not in str(error.value)


def test_a_system_without_a_process_to_spare_is_no_bug(starts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(ray_connection.subprocess, "Popen", full)
    notes: list[str] = []
    with pytest.raises(MedclipError, match=r"not start in 3 tries \(Resource temporarily unavailable\)") as error:
        connected(notes.append).__enter__()
    assert (exit_code(error.value.reason), len(notes)) == (ExitCode.INCOMPLETE, 2)


@pytest.mark.parametrize(("way", "reason"), [("address", Reason.WRONG_USE), ("error", Reason.UNREACHABLE)])
def test_a_cluster_that_does_not_answer_is_one_that_may_later_and_no_address_is_none(
    starts: Path, monkeypatch: pytest.MonkeyPatch, way: str, reason: Reason
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head-node:6379")
    starts.write_text(f"{way} {way} {way}")
    with pytest.raises(MedclipError, match="no Ray cluster can be reached") as error, connected():
        pass
    assert (error.value.reason, error.value.where) == (reason, "head-node:6379")


def test_a_cluster_of_others_is_left_and_not_ended(starts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head-node:6379")
    starts.write_text("fine")
    with connected() as ray:
        assert ray.get(_adder(ray).add.remote(2)) == 42
    assert (starts.parent / "left").exists()


def test_what_becomes_of_a_call_is_a_loss_a_fault_of_ours_or_the_end_of_ray(starts: Path) -> None:
    starts.write_text("fine")
    with connected() as ray:
        worker = _adder(ray)
        with pytest.raises(WorkerLostError):
            ray.get(worker.fail.remote("lost"))
        with pytest.raises(RuntimeError, match="a bug"):
            ray.get(worker.fail.remote("a bug"))
        with pytest.raises(MedclipError, match=r"Ray failed .* \(RaySystemError\)") as error:
            ray.get(worker.fail.remote("other"))
        assert exit_code(error.value.reason) is ExitCode.INCOMPLETE
        assert ray.wait([worker.add.remote(0)], timeout=60)[1] == []


def test_all_who_wait_hear_of_it_when_ray_ends_the_process_that_talks_to_it(starts: Path) -> None:
    starts.write_text("fine")
    with connected() as ray:
        worker = _adder(ray)
        refs = [worker.leave.remote(), worker.add.remote(1)]
        for ref in refs:
            with pytest.raises(MedclipError, match="the engine Ray failed while it worked for this run"):
                ray.wait([ref])
        with pytest.raises(MedclipError, match="the same command goes on"):
            ray.get(worker.add.remote(1))


_DRIVER = """
import sys, tempfile
sys.path[:], tempfile.tempdir = eval(sys.argv[1]), sys.argv[2]
from medclip.runs.engines.ray_connection import connected
with connected():
    pass
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not list the environment of programs")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_what_a_driver_that_is_ended_during_a_start_had_started_ends_with_it_and_its_folder_goes(
    starts: Path, number: signal.Signals
) -> None:
    starts.write_text("hang")
    temp = starts.parent / "temp"
    environment = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    words = [sys.executable, "-c", _DRIVER, repr(sys.path), str(temp)]
    with subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL) as driver:
        deadline = time.monotonic() + 60
        while not (starts.parent / "began").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert os.listdir(temp)
        driver.send_signal(number)
    assert driver.returncode == -number
    while os.listdir(temp) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert os.listdir(temp) == []
