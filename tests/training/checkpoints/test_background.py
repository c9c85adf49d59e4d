"""A checkpoint that is written in the background is that of the moment it was asked for, or none at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from medclip.errors import MedclipError, Reason
from medclip.training.checkpoints import state
from medclip.training.checkpoints import state as store
from medclip.training.checkpoints.state import BackgroundSaver
from medclip.training.ranks import World

SLOW_WRITER = """
import sys, time, torch
from pathlib import Path
from medclip.training.checkpoints import state
from medclip.training.checkpoints.state import BackgroundSaver
from medclip.training.ranks import World
saver = BackgroundSaver(Path(sys.argv[1]), World())
saver.save(1, {"weight": torch.zeros(1000)}, {})
saver.wait()
publish = state._publish
state._publish = lambda *a: (print("drafted", flush=True), time.sleep(60), publish(*a))
saver.save(2, {"weight": torch.ones(1000)}, {})
time.sleep(60)
"""


def _contents(path: Path) -> list[object]:
    """Return the bytes of the tensors, their header (safetensors writes its keys in any order) and the state."""
    (file,) = path.glob("*.safetensors")
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    state = json.loads((path / store.STATE).read_text())
    assert list(state.pop("files")) == [file.name]
    return [file.name, json.loads(data[8:start]), data[start:], state]


def test_it_has_the_bytes_of_one_that_the_run_waited_for_whatever_comes_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {"weight": torch.randn(30, 20), "steps": torch.tensor(3.0)}
    save, changed = store.save_checkpoint, threading.Event()
    waited = save(tmp_path / "a", 7, tensors, {"x": 1}, World())
    monkeypatch.setattr(state, "save_checkpoint", lambda *args: changed.wait() and save(*args))
    saver = BackgroundSaver(tmp_path / "b", World())
    saver.save(7, tensors, {"x": 1})
    tensors["weight"].zero_()
    tensors["steps"].add_(1)
    changed.set()
    saver.wait()
    saver.close()
    assert _contents(tmp_path / "b" / waited.name) == _contents(waited)


def test_one_at_a_time_is_written_and_the_last_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running, most, save = [0], [0], state.save_checkpoint

    def slowly(*args: Any) -> Path:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.05)
        path = save(*args)
        running[0] -= 1
        return path

    monkeypatch.setattr(state, "save_checkpoint", slowly)
    saver = BackgroundSaver(tmp_path, World())
    for step in (1, 2, 3):
        saver.save(step, {"weight": torch.full((3,), float(step))}, {})
    saver.close()
    assert most == [1]
    assert [p.name for p in store.checkpoints(tmp_path)] == ["step-0000002", "step-0000003"]


def test_an_error_comes_out_at_the_next_checkpoint_and_the_one_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = BackgroundSaver(tmp_path, World())
    saver.save(1, {"weight": torch.ones(3)}, {})
    saver.wait()

    def full(*args: object, **kwargs: object) -> None:
        assert threading.current_thread() is not threading.main_thread()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.HuggingFaceStorageWriter, "write_data", full)
    saver.save(2, {"weight": torch.ones(3)}, {})
    with pytest.raises(MedclipError, match="the disk is full") as caught:
        saver.save(3, {"weight": torch.ones(3)}, {})
    assert caught.value.reason is Reason.DISK_FULL
    saver.wait()  # it was told once
    saver.close()
    assert [p.name for p in tmp_path.iterdir()] == ["step-0000001"]


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_writes_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SLOW_WRITER, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "drafted\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    path, state, damaged = store.newest_sound(tmp_path)
    assert path is not None
    assert (path.name, state["step"], damaged) == ("step-0000001", 1, [])
    weight = {"weight": torch.ones(1000)}
    store.load_checkpoint(path, weight, World())
    assert not weight["weight"].any()
    saver = BackgroundSaver(tmp_path, World())  # the next run writes over what was left
    saver.save(2, {"weight": torch.ones(1000)}, {})
    saver.close()
    assert store.newest_sound(tmp_path)[1]["step"] == 2
