"""What a step over a store of slides returns: a row for each slide, also for those that it could do nothing with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, Self, TypeVar

from medclip.errors import MedclipError
from medclip.exit_codes import ExitCode, after
from medclip.result import Result
from medclip.slides.store.slide_store import SlideRow, count_statuses


@dataclass(frozen=True)
class StepRow:
    """One slide of a store and how a step ended for it; what the step made of it is in the fields of its own."""

    key: str
    file: str
    """As in slides.parquet."""
    status: str
    """done, skipped or failed: of the slide, or of this step."""
    reason: str | None = None
    message: str | None = None
    patient: str | None = None
    num_patches: int | None = None

    @classmethod
    def of(cls, row: SlideRow) -> Self:
        """Return the row of a slide that nothing was done with yet."""
        return cls(row.key, row.file, row.status, row.reason, row.message, row.patient, row.num_patches)

    def after(self, error: MedclipError) -> Self:
        """Return the row of a slide that the step failed on."""
        return replace(self, status="failed", reason=str(error.reason), message=error.problem().message)


Row = TypeVar("Row", bound=StepRow)


@dataclass(frozen=True, eq=False, repr=False)
class StepResult(Result, Generic[Row]):
    """The rows of all slides of a store."""

    slides: tuple[Row, ...]

    def __len__(self) -> int:
        return len(self.slides)

    @property
    def counts(self) -> dict[str, int]:
        """Slides by status."""
        return count_statuses(self.slides)

    @property
    def exit_code(self) -> ExitCode:
        """0 where no slide failed, 3 where one did."""
        return after(self.counts)
