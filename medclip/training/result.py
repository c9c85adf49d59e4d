"""What a finished pre-training run returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medclip.result import Result

BEST = "best.safetensors"


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

    def _facts(self) -> dict[str, object]:
        return {
            "steps": f"{self.steps} of {self.total_steps}",
            "pack": self.pack or "not yet: the run was stopped",
            "folder": self.out,
            "validation": ", ".join(f"{name} {value:.3f}" for name, value in self.validation.items()) or "none",
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [{"metric": name, "value": value} for name, value in self.validation.items()][:most]

    @property
    def finished(self) -> bool:
        """Whether all steps were taken."""
        return self.pack is not None
