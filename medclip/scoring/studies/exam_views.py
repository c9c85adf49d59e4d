"""Which images of a mammography examination answer for it, and what is to be known of the answer.

It is decided of what a run keeps of each image (side, view and the header values that may leave), so that the decision
is the same for files and for their stored vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from medclip.files.grouping.mammogram import DISPLACED, ExamView
from medclip.files.grouping.mammography_exam import MammographyExam, arrange
from medclip.sample import SIDES


@dataclass(frozen=True)
class ExamViews:
    """The images of an examination.

    The views that are in their places answer. A breast without one is answered by what else there is of it, whole
    images before partial ones; an examination of which no side is known, by all of its images.

    Args:
        views: In the order of their files; each with a name of its own, and equal ones count in the order of names.

    Example:
        >>> from medclip.sample import ViewType
        >>> exam = ExamViews((ExamView("1", ViewType("L", "CC")), ExamView("2", ViewType("L", "CC"))))
        >>> exam.used, exam.missing(), exam.notes(), exam.notes_of(1)
        ((0,), ('R-CC', 'R-MLO', 'L-MLO'), ('one_view', 'repeat'), ('repeat',))
    """

    views: tuple[ExamView, ...]

    @cached_property
    def arranged(self) -> MammographyExam:
        """The views in their places, and what is set aside."""
        return arrange(self.views)

    @cached_property
    def used(self) -> tuple[int, ...]:
        """Numbers of the images that answer, as they hang: R-CC, L-CC, R-MLO, L-MLO."""
        names = {view.name for view in self.arranged.chosen}
        used = [n for n, view in enumerate(self.views) if view.name in names]
        for side in SIDES:
            of_side = [n for n, view in enumerate(self.views) if view.view.side == side]
            used += [] if any(n in used for n in of_side) else self._whole(of_side)
        used = used or self._whole(range(len(self.views)))
        return tuple(sorted(used, key=lambda n: (self.views[n].view.hanging, n)))

    @property
    def set_aside(self) -> tuple[int, ...]:
        """Numbers of the images that do not answer."""
        return tuple(n for n in range(len(self.views)) if n not in self.used)

    @property
    def sides(self) -> tuple[str, ...]:
        """The breasts that have an answer."""
        return tuple(side for side in SIDES if self.of_side(side))

    def of_side(self, side: str) -> tuple[int, ...]:
        """Return the numbers of the images that answer for a breast."""
        return tuple(n for n in self.used if self.views[n].view.side == side)

    def missing(self, side: str = "") -> tuple[str, ...]:
        """Return the places without an image, of the examination or of one breast."""
        return tuple(slot for slot in self.arranged.missing if slot.startswith(side))

    def notes_of(self, n: int) -> tuple[str, ...]:
        """Return what is to be known of an image: why it is none of the views, and how it differs from others."""
        view = self.views[n]
        notes = [str(reason) for aside, reason in self.arranged.set_aside if aside.name == view.name]
        notes += ["only_for_processing"] if view.intent == "processing" and not notes else []
        notes += ["implant"] if view.implant or DISPLACED in view.modifiers else []
        return tuple(notes)

    def notes(self, side: str = "") -> tuple[str, ...]:
        """Return what is to be known of the answer of the examination or of one breast, in alphabetical order."""
        used = self.of_side(side) if side else self.used
        numbers = [n for n, view in enumerate(self.views) if view.view.side == side or not side]
        notes = {note for n in numbers for note in self.notes_of(n)}
        if len(used) == 1:
            notes.add("one_view")
        elif self.missing(side):
            notes.add("missing_views")
        return tuple(sorted(notes))

    def _whole(self, numbers: Sequence[int]) -> list[int]:
        return [n for n in numbers if not self.views[n].is_partial] or list(numbers)
