"""Small heat maps in the report of scores: of each study the finding that scores highest, or one that was named."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.progress import Progress
from medclip.reports.score.hanging import most_telling, place_of
from medclip.reports.score.study import ThumbnailView
from medclip.runs.options import ScoreOptions
from medclip.sample import FileRef, Modality
from medclip.settings import Settings
from medclip.wording import percent

if TYPE_CHECKING:
    from medclip.explaining.target import Target
    from medclip.models.model import Model
    from medclip.runs.ledger.ledger import Ledger
    from medclip.runs.rows import FileRow, ScoreRow

TOP = "top"
"""Names the finding of the highest probability of each study."""


@dataclass(frozen=True)
class HeatMaps:
    """Draws the maps of a run's studies. Files are read once more, through the reader that scored them."""

    root: Path
    """What was scored."""
    model: Any
    """Loaded, or the name or folder of its pack."""
    options: ScoreOptions
    settings: Settings
    named: str
    """`TOP`, TASK or TASK:CLASS."""
    device: str = "cpu"
    progress: Progress | None = None

    def draw(self, ledger: Ledger, studies: Sequence[str]) -> dict[str, ThumbnailView]:
        """Return the heat map of each study that has one: of the first of its images, and of a series of its slices; of
        a mammography examination that is asked by its views, of the one that counts most.

        Raises:
            MedclipError: NOT_SUPPORTED_YET for a tower that is not understood.
        """
        from medclip.files.readers.pool import ReadingPool

        if self.progress is not None:
            self.progress.stage("Drawing heat maps", len(studies))
        maps = {}
        with ReadingPool.of(self.settings, 1) as pool:
            for key in studies:
                if (view := self._of_study(ledger, key, pool)) is not None:
                    maps[key] = view
                if self.progress is not None:
                    self.progress.step()
        return maps

    @cached_property
    def _targets(self) -> Any:
        from medclip.models.packs.pack import load_model
        from medclip.scoring.targets import Targets

        model = self.model
        if isinstance(model, str | Path):
            model = load_model(model, device=self.device)
        return Targets(model, self.options, self.options.tasks)

    def _of_study(self, ledger: Ledger, key: str, pool: Any) -> ThumbnailView | None:
        from medclip.adapters.sources import source_of_files
        from medclip.explaining.methods import ExplainOptions
        from medclip.explaining.overlay import small_overlay
        from medclip.explaining.run import explain_unit
        from medclip.explaining.seen import read_seen
        from medclip.runs.read_unit import SHEET_PX, THUMBNAIL_PX

        score = _chosen(ledger.scores_of(key), self.named)
        files = ledger.files_of(key)
        if score is None or not files:
            return None
        model = self._targets.model
        modality = Modality(score.modality)
        target = self._targets.named(score.task, score.class_, modality)
        if target is None:
            return None
        view = most_telling(ledger.exam_of(key), score.task, score.class_)
        unit = files[0].unit if view is None else view.row
        refs = [self._ref(row) for row in files if row.unit == unit]
        try:
            source = source_of_files(refs[0].path, refs, self.settings)
            seen = pool.submit(read_seen, source, modality, model.preprocess, self.settings).result()
            options = ExplainOptions(checks=False)
            explained = explain_unit(model, seen, _One(target), options, row=1, file="", draw=False)
        except MedclipError as error:
            if error.reason in (Reason.OUT_OF_MEMORY, Reason.NOT_SUPPORTED_YET):
                raise
            return None  # the file went or changed since; its row says how it was scored
        (heat,) = explained.maps
        where = f", {explained.labels[heat.top]}" if explained.labels[heat.top] else ""
        empty = ": empty" if heat.is_empty else ""
        of = "" if view is None else f" of {place_of(view)}"
        longest_px = THUMBNAIL_PX if seen.sheet is None else SHEET_PX
        data = base64.b64encode(small_overlay(explained, seen, heat, longest_px)).decode()
        return ThumbnailView(
            f"heat map{of}{empty}: {score.class_.replace('_', ' ')} {percent(score.probability)}{where}",
            data,
            mirrored=view is not None and view.side == "R",
        )

    def _ref(self, row: FileRow) -> FileRef:
        base = self.root if self.root.is_dir() else self.root.parent
        return FileRef(base / row.path, row.path)


def check_named(named: str, model: str | Path | Model, options: ScoreOptions) -> None:
    """Refuse to draw what a run does not ask, before it reads anything.

    Raises:
        MedclipError: WRONG_USE for such a task, and for a class that its task does not have; PACK_NOT_FOUND.
    """
    from medclip.adaptation.pack.pack_head import read_pack_texts
    from medclip.models.card import read_card
    from medclip.models.packs.pack import find_pack
    from medclip.scoring.targets import class_of
    from medclip.scoring.tasks import asked_tasks

    if named == TOP:
        return
    pack = find_pack(model)
    card = read_card(pack)
    asked = {one.task.name: one for one in asked_tasks(card, options, read_pack_texts(pack, card))}
    task, _, class_ = named.partition(":")
    if task not in asked:
        raise MedclipError(
            Reason.WRONG_USE,
            f"heat maps of {task!r} cannot be drawn, which this run does not ask.",
            hint=did_you_mean(task, (TOP, *asked), "Name one of"),
        )
    class_of(asked[task], class_)


@dataclass(frozen=True)
class _One:
    """What is asked: one target."""

    target: Target

    def of(self, features_VD: NDArray[np.float32], modality: Modality | None) -> tuple[Target, ...]:
        """Return it."""
        return (self.target,)

    def least_related(self, target: Target, feature_D: NDArray[np.float32], modality: Modality | None) -> None:
        """Return nothing: maps of a report are not checked."""


def _chosen(scores: Sequence[ScoreRow], named: str) -> ScoreRow | None:
    """Return the class that is drawn: of findings before choices the one of the highest probability."""
    task, _, class_ = named.partition(":")
    if named != TOP:
        scores = [s for s in scores if s.task == task and class_ in ("", s.class_)]
    findings = [score for score in scores if score.kind == "multilabel"]
    first = [score for score in scores if score.task == scores[0].task]
    return max(findings or first, key=lambda score: score.probability, default=None)
