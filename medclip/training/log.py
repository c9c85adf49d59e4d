"""The log of a run: log.jsonl for programs, steps and sentences for people, TensorBoard files if wanted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.output import disk_errors, make_file, write_file
from medclip.progress import Progress
from medclip.wording import capital, figure, number, percent

FILE_NAME = "log.jsonl"
TENSORBOARD = "tensorboard"
SHARES = {"data_wait": "waiting for data", "device_idle": "device idle"}
"""Keys of a step's entry that are shares of the time, and what people call them."""


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read a log; a last line that a crash cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def cut_log(path: Path, step: int) -> None:
    """Drop what a stopped run logged after its last checkpoint; those steps are done again."""
    kept = [e for e in read_log(path) if e.get("step", 0) <= step]
    write_file(path, "".join(json.dumps(e) + "\n" for e in kept))


class RunLog:
    """Writes entries to log.jsonl and shows them.

    Args:
        folder: The run's folder.
        total_steps: Number of steps of the whole run.
        done: Steps done before.
        progress: Progress bar of the steps, which shows sentences, too.
        write: Whether anything is written and shown: ranks after the first are silent.
        tensorboard: Whether event files are written under folder/tensorboard too.

    Raises:
        MedclipError: WRONG_USE when TensorBoard is wanted and not installed.
    """

    def __init__(
        self,
        folder: Path,
        total_steps: int,
        done: int,
        progress: Progress,
        *,
        write: bool = True,
        tensorboard: bool = False,
    ) -> None:
        self._board = _board(folder / TENSORBOARD, done) if tensorboard and write else None
        if write:
            make_file(folder / FILE_NAME)
        self._file = (folder / FILE_NAME).open("a", encoding="utf-8") if write else None
        self._folder, self._progress, self._done = folder, progress, done
        if write:
            progress.stage("Training", total_steps, done)
            if done:
                self.write("resume", {"step": done})

    def write(self, kind: str, values: Mapping[str, Any]) -> None:
        """Write one entry: `kind` is step, val, skip, bad, note or resume.

        Raises:
            MedclipError: As `medclip.files.output.disk_errors`.
        """
        if self._file is None:
            return
        # Six significant figures: losses compare exactly enough, lines stay readable.
        short = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in values.items()}
        entry = {"kind": kind, **short}
        with disk_errors(self._folder / FILE_NAME):
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in entry.items():
                if name != "step" and isinstance(value, int | float):
                    self._board.add_scalar(f"{kind}/{name}", value, entry.get("step"))
        if kind == "step":
            self._progress.step(values["step"] - self._done, _beside(values))
            self._done = values["step"]
        elif kind != "resume":  # the stage says that already
            self._progress.note(_sentence(kind, values))

    def reach(self, step: int) -> None:
        """Count a step that gets no entry: the remaining time is known before the next one."""
        if self._file is not None:
            self._progress.step(step - self._done)
            self._done = step

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            with suppress(OSError):  # what a full disk left in the buffer was told by `write`
                self._file.close()
        if self._board is not None:
            self._board.close()


def _beside(values: Mapping[str, Any]) -> str:
    """Write what stands beside the steps: loss 2.314, lr 0.0005, 143 images/s, < 1 % waiting for data."""
    parts = [f"loss {values['loss']:.4g}"]
    if "lr" in values:
        parts.append(f"lr {_rate(values['lr'])}")
    parts.append(f"{figure(values['images_s'])} images/s")
    parts += [f"{percent(values[key])} {name}" for key, name in SHARES.items() if key in values]
    return ", ".join(parts)


def _rate(value: float) -> str:
    """Write a learning rate with three significant figures and no power of ten.

    Example:
        >>> _rate(5e-4), _rate(1.2345e-6), _rate(0.0)
        ('0.0005', '0.00000123', '0')
    """
    places = 2 - math.floor(math.log10(value)) if value > 0 else 0
    text = f"{value:.{max(0, places)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _sentence(kind: str, values: Mapping[str, Any]) -> str:
    """Write an entry that is no step for people."""
    if kind == "note":
        return f"{capital(str(values['note']))}."
    figures = [
        f"{name.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"
        for name, value in values.items()
        if name != "step"
    ]
    heads = {"val": "Validation after", "skip": "Left out", "bad": "Samples that could not be read until"}
    return f"{heads[kind]} step {number(values['step'])}: {', '.join(figures)}"


def _board(folder: Path, done: int) -> Any:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as e:
        raise MedclipError(
            Reason.WRONG_USE,
            "train.tensorboard needs the package tensorboard, which is not installed.",
            hint="Run: pip install 'medclip-imaging[tensorboard]'",
        ) from e
    return SummaryWriter(str(folder), purge_step=done + 1)
