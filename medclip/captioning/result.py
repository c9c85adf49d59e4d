"""What a run of captions made, as a value that shows itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medclip.captioning.agents.agent import Usage
from medclip.captioning.write_records import SHARDS, PatchRecord, RejectedCaption
from medclip.exit_codes import ExitCode
from medclip.result import Result, named_counts


@dataclass(frozen=True)
class SlideStatus:
    """A row of slides.parquet: one slide, and what became of it."""

    slide: str
    file: str
    """Relative to the folder that was named; a keyed hash with `hash_paths`."""
    status: str
    """done, skipped or failed."""
    reason: str | None
    message: str | None
    patient: str
    """Keyed hash."""
    split: str
    organ: str
    num_findings: int
    mpp_um: float | None
    num_patches: int
    """On tissue."""
    num_encoded: int
    """Those that are good enough."""
    num_lost: int
    """Those that are damaged or have a flag."""
    lost_for: str
    num_chosen: int
    num_records: int
    num_rejected: int


@dataclass(frozen=True, eq=False, repr=False)
class PathgenResult(Result):
    """What a run of captions made."""

    folder: Path
    slides: tuple[SlideStatus, ...]
    records: tuple[PatchRecord, ...]
    rejects: tuple[RejectedCaption, ...]
    usage: Usage
    """What the agent took, in all runs on this folder."""
    already_finished: bool = False

    @property
    def shards(self) -> Path:
        """The folder to train on; it is there once there is a record."""
        return self.folder / SHARDS

    @property
    def counts(self) -> Mapping[str, int]:
        """Slides by status."""
        return {s: sum(row.status == s for row in self.slides) for s in ("done", "skipped", "failed")}

    @property
    def rejected_by_reason(self) -> Mapping[str, int]:
        """Captions that became no record."""
        return dict(sorted(Counter(reject.reason for reject in self.rejects).items()))

    @property
    def exit_code(self) -> ExitCode:
        """Return 3 where slides failed."""
        return ExitCode.SOME_FAILED if self.counts["failed"] else ExitCode.COMPLETE

    def _facts(self) -> dict[str, object]:
        return {
            "slides": named_counts({k: v for k, v in self.counts.items() if v}),
            "records": f"{len(self.records)} ({named_counts(Counter(record.split for record in self.records))})",
            "rejected": named_counts(self.rejected_by_reason),
            "agent": f"{self.usage.calls} calls, {self.usage.prompt_tokens + self.usage.completion_tokens} tokens, "
            f"{self.usage.seconds:.1f} s",
            "shards": self.shards if self.records else "none",
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [asdict(record) for record in self.records[:most]]

    def to_dict(self) -> dict[str, Any]:
        """Return counts as plain data for JSON."""
        return {
            "out": str(self.folder),
            "slides": dict(self.counts),
            "records": len(self.records),
            "chosen": sum(row.num_chosen for row in self.slides),
            "rejected": dict(self.rejected_by_reason),
            "usage": asdict(self.usage),
            "exit_code": int(self.exit_code),
        }
