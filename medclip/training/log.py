"""What a run says: log.jsonl for programs, a progress bar or plain lines for people, TensorBoard files if wanted."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from medclip.errors import MedclipError, Reason

FILE_NAME = "log.jsonl"
TENSORBOARD = "tensorboard"


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read a log; a last line that a crash cut short is left out."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def cut_log(path: Path, step: int) -> None:
    """Drop what a stopped run logged after its last checkpoint; those steps are done again."""
    kept = [e for e in read_log(path) if e.get("step", 0) <= step]
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.write_text("".join(json.dumps(e) + "\n" for e in kept), encoding="utf-8")
    fresh.replace(path)


class RunLog:
    """Writes entries to log.jsonl and shows them.

    Args:
        folder: The run's folder.
        total_steps: For the progress bar.
        done: Steps done before.
        show: False shows nothing.
        write: False writes nothing either: ranks after the first are silent.
        tensorboard: Write event files under folder/tensorboard too.
        out: Where to show; standard error where None.

    Raises:
        MedclipError: WRONG_USE when TensorBoard is wanted and not installed.
    """

    def __init__(
        self,
        folder: Path,
        total_steps: int,
        done: int,
        *,
        show: bool = True,
        write: bool = True,
        tensorboard: bool = False,
        out: TextIO | None = None,
    ) -> None:
        self._board = _board(folder / TENSORBOARD, done) if tensorboard and write else None
        self._file = (folder / FILE_NAME).open("a", encoding="utf-8") if write else None
        self._out = out or sys.stderr
        self._show = show and write
        self._bar: Any = None
        if self._show and self._out.isatty() and os.environ.get("TERM") != "dumb":
            self._bar, self._task = _bar(self._out, total_steps, done)

    def write(self, kind: str, values: Mapping[str, Any]) -> None:
        """Write one entry: `kind` is step, val, skip, bad or note."""
        if self._file is None:
            return
        entry = {"kind": kind, **{k: _short(v) for k, v in values.items()}}
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in entry.items():
                if name != "step" and isinstance(value, int | float):
                    self._board.add_scalar(f"{kind}/{name}", value, entry.get("step"))
        line = "  ".join(f"{k} {v}" for k, v in entry.items() if k != "kind")
        if self._bar is not None:
            if kind == "step":
                self._bar.update(
                    self._task, completed=entry["step"], said=f"loss {entry['loss']}  {entry['images_s']} img/s"
                )
            else:
                self._bar.console.print(f"{kind}  {line}", highlight=False)
        elif self._show:
            print(f"{kind:4}  {line}", file=self._out, flush=True)

    def close(self) -> None:
        """Close the files and the bar."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()
        if self._bar is not None:
            self._bar.stop()


def _board(folder: Path, done: int) -> Any:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as e:
        raise MedclipError(
            Reason.WRONG_USE,
            "train.tensorboard: the package tensorboard is not installed.",
            hint="Run: pip install 'medclip-imaging[tensorboard]'",
        ) from e
    return SummaryWriter(str(folder), purge_step=done + 1)


def _bar(out: TextIO, total: int, done: int) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
        console=Console(file=out),
    )
    task = bar.add_task("training", total=total, completed=done, said="")
    bar.start()
    return bar, task


def _short(value: Any) -> Any:
    """Six significant figures: losses compare exactly enough, lines stay readable."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
