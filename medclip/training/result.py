"""What a run leaves behind: its log (log.jsonl, sentences, TensorBoard files if wanted), and what the verb returns."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason
from medclip.files.output import disk_errors, make_file, write_file
from medclip.progress import Progress
from medclip.result import Result
from medclip.wording import capital, figure, number, percent

if TYPE_CHECKING:
    from medclip.training.reconstructions import Reconstruction


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
            MedclipError: DISK_FULL, PERMISSION_DENIED, WRITE_ERROR.
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


BEST = "best.safetensors"
REPORT = "report.html"
HEADS, MASKED = "heads.safetensors", "masked.safetensors"
"""Of supervised parts their layers over unit features, by task; of a masked part what guesses hidden pixels."""
OWN_SHARDS, OWN_TASK, LABELS_NOTE = "shards", "task.yaml", "finetune.json"
"""What fine-tuning puts into the folder of its run beforehand."""
SIZES = ("num_images", "num_patients", "auroc_low", "auroc_high")
"""Of a validation: what its figures are of, and the ends of the interval of one."""
_WIDTH, _HEIGHT, _MOST_POINTS = 480, 96, 240


@dataclass(frozen=True, repr=False)
class PretrainResult(Result):
    """How a run ended."""

    out: Path
    steps: int
    total_steps: int
    pack: Path | None
    """None when the run was stopped before its end."""
    validation: Mapping[str, float] = field(default_factory=dict)
    """The last validation."""
    test: Sequence[Mapping[str, Any]] = ()
    """Figures of the run's own test split: task, metric, value, low, high, chance. Empty where none was measured, and
    on ranks after the first."""
    test_notes: Sequence[str] = ()
    """What could not be measured there, and what its figures may be too high or too low by."""
    report: Path | None = None
    """The page of the run; None on ranks after the first."""
    reconstructions: Sequence[Reconstruction] = ()
    """Held-out images with hidden patches filled in, of a finished run with a masked part and validation; empty on
    ranks after the first. They are images of patients: the report shows them, nothing else here does."""

    def _facts(self) -> dict[str, object]:
        return {
            "steps": f"{self.steps} of {self.total_steps}",
            "pack": self.pack or "not yet: the run was stopped",
            "folder": self.out,
            "report": self.report,
            "validation": ", ".join(
                f"{name} {value}" if isinstance(value, int) else f"{name} {value:.3f}"
                for name, value in self.validation.items()
            )
            or "none",
            "test": ", ".join(f"{row['task']} {row['metric']} {row['value']:.3f}" for row in self.test) or "none",
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        columns = ("task", "metric", "value", "low", "high", "chance")
        ends = {name: self.validation.get(f"auroc_{name}") for name in ("low", "high")}
        values = [
            {"metric": name, "value": value, **(ends if name == "auroc" else {})}
            for name, value in self.validation.items()
            if name not in ("auroc_low", "auroc_high")
        ]
        rows = [("val", row) for row in values] + [("test", row) for row in self.test]
        return [{"split": split} | {name: row.get(name) for name in columns} for split, row in rows][:most]

    def _repr_html_(self) -> str:
        """Return facts and figures for a notebook, and the course of the training loss."""
        return super()._repr_html_() + self._curve()

    def _curve(self) -> str:
        """Draw the logged losses as a line; "" where there are fewer than two."""
        losses = [(e["step"], e["loss"]) for e in read_log(self.out / FILE_NAME) if e["kind"] == "step"]
        losses = losses[:: max(1, len(losses) // _MOST_POINTS)]
        values = [loss for _, loss in losses]
        if len(losses) < 2 or not min(values) < max(values) < float("inf"):
            return ""
        first, last, low, high = losses[0][0], losses[-1][0], min(values), max(values)
        points = " ".join(
            f"{(step - first) / (last - first) * _WIDTH:.1f},{(high - loss) / (high - low) * _HEIGHT:.1f}"
            for step, loss in losses
        )
        name = f"training loss, {values[0]:.3f} at step {first} to {values[-1]:.3f} at step {last}"
        return (
            f'<svg role="img" aria-label="{name}" viewBox="-2 -2 {_WIDTH + 4} {_HEIGHT + 4}" width="{_WIDTH}">'
            f'<polyline points="{points}" fill="none" stroke="currentColor"/></svg><p>{name}</p>'
        )

    @property
    def finished(self) -> bool:
        """Whether all steps were taken."""
        return self.pack is not None
