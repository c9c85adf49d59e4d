"""What a pre-training run returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.result import Result
from medclip.training.log import FILE_NAME, read_log

if TYPE_CHECKING:
    from medclip.training.reconstructions import Reconstruction

BEST = "best.safetensors"
REPORT = "report.html"
HEADS, MASKED = "heads.safetensors", "masked.safetensors"
"""Of supervised parts their layers over unit features, by task; of a masked part what guesses hidden pixels."""
OWN_SHARDS, OWN_TASK, LABELS_NOTE = "shards", "task.yaml", "finetune.json"
"""What fine-tuning puts into the folder of its run beforehand."""
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
            "validation": ", ".join(f"{name} {value:.3f}" for name, value in self.validation.items()) or "none",
            "test": ", ".join(f"{row['task']} {row['metric']} {row['value']:.3f}" for row in self.test) or "none",
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        columns = ("task", "metric", "value", "low", "high", "chance")
        values = [{"metric": name, "value": value} for name, value in self.validation.items()]
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
