"""Temporary folders go with their process, or at the next start where it was killed; no other folder is touched."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from medclip.files import temporary_folder
from medclip.files.temporary_folder import OWNER, VARIABLE, TemporaryFolder, sweep

_HOLD = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from medclip.files.temporary_folder import TemporaryFolder
folder = TemporaryFolder("ray")
(folder.path / "log").write_text("x")
print(folder.path, flush=True)
sys.stdin.read()
"""
_OUTLIVE = """
import os, subprocess, sys, tempfile
tempfile.tempdir = sys.argv[1]
from medclip.files.temporary_folder import TemporaryFolder
folder = TemporaryFolder("ray")
code = "import sys, time; print(1, flush=True); sys.stdout.close(); time.sleep(600)"
started = {"stdout": subprocess.PIPE, "env": {**os.environ, **folder.environment}, "start_new_session": True}
program = subprocess.Popen([sys.executable, "-c", code], **started)
program.stdout.readline()
print(program.pid, folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders lie in this test, not looked at yet."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sweep.cache_clear()
    yield tmp_path
    sweep.cache_clear()


def hold(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process with a folder of its own."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", _HOLD, str(parent)], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_it_is_its_owner_s_alone_and_goes_with_the_object(parent: Path) -> None:
    folder = TemporaryFolder("score")
    (folder.path / "below").mkdir()
    assert (folder.path.stat().st_mode & 0o777, folder.path.parent.stat().st_mode & 0o777) == (0o700, 0o700)
    assert os.listdir(folder.path) == ["below"]
    del folder
    gc.collect()
    assert os.listdir(parent) == []
    with TemporaryFolder("arrays") as path:
        assert path.is_dir()
    assert os.listdir(parent) == []


def test_what_a_killed_process_left_goes_at_the_next_start_and_what_lives_stays(parent: Path) -> None:
    killed, left = hold(parent)
    living, kept = hold(parent)
    with killed, living:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert left.is_dir()
        with TemporaryFolder("data"):
            assert not left.parent.exists()
            assert (kept / "log").read_text() == "x"
        living.communicate()
    assert os.listdir(parent) == []


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not list the environment of programs")
def test_programs_that_outlive_who_started_them_end_with_the_folder_and_those_of_living_ones_stay(parent: Path) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", _OUTLIVE, str(parent)]
    killed, living = (subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2))
    assert killed.stdout is not None
    assert living.stdout is not None
    with killed, living:
        (orphan, left), (kept, _) = killed.stdout.readline().split(), living.stdout.readline().split()
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert _is_running(int(orphan))
        assert sweep(str(parent)) == 1
        assert not _is_running(int(orphan))
        assert not Path(left).parent.exists()
        assert _is_running(int(kept))
        living.communicate()
        os.kill(int(kept), signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not list the environment of programs")
def test_the_owner_of_a_folder_ends_its_programs_and_never_itself(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = TemporaryFolder("ray")
    monkeypatch.setenv(VARIABLE, folder.environment[VARIABLE])
    code = "import time; time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **folder.environment}) as program:
        folder.end_programs()
        assert program.wait(60) == -signal.SIGKILL
    folder.close()
    assert os.listdir(parent) == []


def test_a_folder_that_cannot_be_emptied_keeps_its_owner_and_goes_at_the_next_start(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = TemporaryFolder("ray")
    with monkeypatch.context() as somebody_writes:
        somebody_writes.setattr(temporary_folder.shutil, "rmtree", lambda *_, **__: None)
        folder.close()
    assert (folder.path.parent / OWNER).exists()
    sweep.cache_clear()
    assert sweep(str(parent)) == 1
    assert os.listdir(parent) == []


def test_folders_of_others_are_not_touched(parent: Path) -> None:
    (parent / "medclip-results-mine").mkdir()
    (parent / "medclip-file").touch()
    (parent / "elsewhere").mkdir()
    (parent / "elsewhere" / OWNER).touch()
    (parent / "medclip-link").symlink_to(parent / "elsewhere")
    (parent / "medclip-linked").mkdir()
    (parent / "medclip-linked" / OWNER).symlink_to(parent / "elsewhere" / OWNER)
    (parent / "other").mkdir()
    (parent / "other" / OWNER).touch()
    before = sorted(path.name for path in parent.rglob("*"))
    assert sweep(str(parent)) == 0
    assert sorted(path.name for path in parent.rglob("*")) == before


def test_a_folder_of_another_user_is_not_touched(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (parent / "medclip-ray-x").mkdir()
    (parent / "medclip-ray-x" / OWNER).touch()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert sweep(str(parent)) == 0
    monkeypatch.undo()
    sweep.cache_clear()
    assert sweep(str(parent)) == 1


def test_where_nothing_can_be_locked_nothing_is_ever_taken_for_left(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary_folder, "_lock", lambda descriptor: False)
    with TemporaryFolder("onnx") as path:
        assert os.listdir(path.parent) == [path.name]
    assert os.listdir(parent) == []
