"""What a finished pre-training run returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

BEST = "best.safetensors"


@dataclass(frozen=True)
class PretrainResult:
    """How a run ended."""

    out: Path
    steps: int
    total_steps: int
    pack: Path | None
    """None when the run was stopped before its end."""
    validation: Mapping[str, float] = field(default_factory=dict)
    """The last validation."""

    @property
    def finished(self) -> bool:
        """Whether all steps were taken."""
        return self.pack is not None
