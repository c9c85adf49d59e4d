"""What fine-tuning returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medclip.adaptation.data.class_text import ClassText
from medclip.result import Result, named_counts
from medclip.training.result import PretrainResult
from medclip.wording import estimate, list_of


@dataclass(frozen=True, eq=False, repr=False)
class FinetuneResult(Result):
    """How fine-tuning ended, and how good it is on the test patients."""

    text: ClassText
    """The classes."""
    run: PretrainResult
    """The training."""
    images: Mapping[str, int]
    """Images by split."""
    patients: Mapping[str, int]
    """Patients by split."""
    problems: Mapping[str, int]
    """Files that could not be read, by reason."""
    notes: tuple[str, ...] = ()

    @property
    def pack(self) -> Path | None:
        """The pack; None when the run was stopped before its end."""
        return self.run.pack

    @property
    def test(self) -> Sequence[Mapping[str, Any]]:
        """Figures of the test split: task, metric, value, low, high, chance; of the classes the worst first."""
        return self.run.test

    @property
    def report(self) -> Path | None:
        """The page of the run."""
        return self.run.report

    def _facts(self) -> dict[str, object]:
        first = next(iter(self.test), None)
        figure = (
            "not measured"
            if first is None
            else (f"{first['metric'].replace('_', ' ')} {estimate(first['value'], first['low'], first['high'])}")
        )
        return {
            "task": f"{self.text.task.title}: {list_of(self.text.names, most=5)}",
            "images": named_counts(self.images),
            "patients": named_counts(self.patients),
            "not read": named_counts(self.problems) or 0,
            "steps": f"{self.run.steps} of {self.run.total_steps}",
            "test": figure,
            "pack": self.pack or "not yet: the run was stopped",
            "report": self.report,
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return self.run._rows(most)
