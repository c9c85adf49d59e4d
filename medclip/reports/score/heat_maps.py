"""Small heat maps in the report of scores: of each study the finding that scores highest, or one that was named."""

from __future__ import annotations

import base64
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.export.study_result import DrawnMap, StudyRows, rows_of
from medclip.progress import Progress
from medclip.reports.score.hanging import most_telling, place_of
from medclip.reports.score.study import Thumbnail
from medclip.runs.planning.options import ScoreOptions
from medclip.sample import FileRef, Kind, Modality
from medclip.settings import Settings
from medclip.text.vocabulary.task_kinds import independent_kinds
from medclip.wording import percent

if TYPE_CHECKING:
    from medclip.explaining.explanation import Explanation, HeatMap
    from medclip.explaining.seen import Seen
    from medclip.explaining.target import Target
    from medclip.models.model import Model
    from medclip.runs.ledger.ledger import Ledger
    from medclip.runs.rows import ExamRow, FileRow, ScoreRow


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
    held: Callable[[Sequence[str]], AbstractContextManager[None]] = lambda _: nullcontext()
    """From names of files that lie elsewhere to what has them below `root` meanwhile."""
    keep: Callable[[Iterable[str]], None] = lambda _: None
    """Called with the names of files that are to be drawn soon."""

    def keep_files(self, rows: StudyRows) -> None:
        """Have the files of a study's map kept that is drawn soon, where they would be gone otherwise."""
        chosen = self._chosen_files(rows)
        if chosen is not None:
            self.keep([row.path for row in chosen[2]])

    def draw(self, ledger: Ledger, studies: Sequence[str]) -> dict[str, Thumbnail]:
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

    def draw_large(self, studies: Iterable[StudyRows]) -> Generator[DrawnMap | None, None, None]:
        """Yield the heat map of each study as large as its image is shown, the way round that it was recorded; None
        for a study that has none or an empty one.

        It is computed with one thread: beside the images of a run and behind them the same bits.

        Raises:
            MedclipError: NOT_SUPPORTED_YET for a tower that is not understood.
        """
        from medclip.explaining.overlay import large_overlay
        from medclip.files.readers.pool import ReadingPool
        from medclip.models.devices import torch_threads

        with ReadingPool.of(self.settings, 1) as pool:
            for rows in studies:
                with torch_threads(1):
                    one = self._explain(rows, pool)
                if one is None or one.heat.empty[one.heat.top]:
                    yield None
                    continue
                pixels = large_overlay(one.explained, one.seen, one.heat)
                yield DrawnMap(
                    np.ascontiguousarray(pixels[:, ::-1]) if one.is_mirrored else pixels,
                    one.title,
                    ", ".join(part for part in (one.place, one.label) if part),
                    one.files,
                    one.caution,
                )

    def _of_study(self, ledger: Ledger, key: str, pool: Any) -> Thumbnail | None:
        from medclip.explaining.overlay import small_overlay
        from medclip.runs.units.read_unit import SHEET_PX, THUMBNAIL_PX

        one = self._explain(rows_of(ledger, key), pool)
        if one is None:
            return None
        where = f", {one.label}" if one.label else ""
        empty = ": empty" if one.heat.is_empty else ""
        of = f" of {one.place}" if one.place else ""
        longest_px = THUMBNAIL_PX if one.seen.sheet is None else SHEET_PX
        data = base64.b64encode(small_overlay(one.explained, one.seen, one.heat, longest_px)).decode()
        return Thumbnail(f"heat map{of}{empty}: {one.title}{where}", data, mirrored=one.is_mirrored)

    def _explain(self, rows: StudyRows, pool: Any) -> _Explained | None:
        """Read a study's image once more and compute its map; None where there is nothing to draw or it cannot be."""
        chosen = self._chosen_files(rows)
        if chosen is None:
            return None
        score, view, files = chosen
        modality = Modality(score.modality)
        target = self._targets.named(score.task, score.class_, modality)
        if target is None:
            return None
        with self.held([row.path for row in files]):
            return self._read(score, view, files, target, modality, pool)

    def _chosen_files(self, rows: StudyRows) -> tuple[ScoreRow, ExamRow | None, list[FileRow]] | None:
        """Return what of a study is drawn, and the files of the image that it is drawn of; None where nothing is."""
        score, files = _chosen(rows.scores, self.named), rows.files
        if score is None or not files:
            return None
        view = most_telling(rows.exams, score.task, score.class_)
        unit = files[0].unit if view is None else view.row
        return score, view, [row for row in files if row.unit == unit]

    def _read(
        self,
        score: ScoreRow,
        view: ExamRow | None,
        files: Sequence[FileRow],
        target: Target,
        modality: Modality,
        pool: Any,
    ) -> _Explained | None:
        from medclip.adapters.base import source_of_files
        from medclip.explaining.explain_unit import explain_unit
        from medclip.explaining.explainers import NONE, ExplainOptions
        from medclip.explaining.seen import read_seen

        model, refs = self._targets.model, [self._ref(row) for row in files]
        try:
            source = source_of_files(refs[0].path, refs, self.settings)
            seen = pool.submit(read_seen, source, modality, model.preprocess, self.settings).result()
            options = ExplainOptions(checks=NONE)
            explained = explain_unit(model, seen, _One(target), options, row=1, file="", draw=False)
        except MedclipError as error:
            if error.reason in (Reason.OUT_OF_MEMORY, Reason.NOT_SUPPORTED_YET):
                raise
            return None  # the file went or changed since; its row says how it was scored
        (heat,) = explained.maps
        title = f"{score.class_.replace('_', ' ')} {percent(score.probability)}"
        paths = tuple(row.path for row in files)
        return _Explained(explained, seen, heat, title, view, paths, score.caution or "")

    def _ref(self, row: FileRow) -> FileRef:
        base = self.root if self.root.is_dir() else self.root.parent
        return FileRef(base / row.path, row.path)


@dataclass(frozen=True, eq=False)
class _Explained:
    """A study's image with its map."""

    explained: Explanation
    seen: Seen
    heat: HeatMap
    title: str
    """The finding and its probability."""
    view: ExamRow | None
    """Of an examination that was asked by its views: the one that is drawn."""
    files: tuple[str, ...]
    caution: str
    """As `ScoreRow.caution`; it stands beside the answer in the report."""

    @property
    def label(self) -> str:
        """Which image of several carries most."""
        return self.explained.labels[self.heat.top]

    @property
    def place(self) -> str:
        """The view of a mammography examination; empty for other images."""
        return "" if self.view is None else place_of(self.view)

    @property
    def is_mirrored(self) -> bool:
        """Whether the model's image is the recorded one turned round."""
        return self.view is not None and self.view.side == "R"


def check_named(named: str, model: str | Path | Model, options: ScoreOptions) -> None:
    """Refuse to draw what a run does not ask, before it reads anything.

    Raises:
        MedclipError: WRONG_USE for such a task, and for a class that its task does not have; PACK_NOT_FOUND.
    """
    from medclip.adaptation.pack.pack_head import read_pack_texts
    from medclip.models.packs.card import read_card
    from medclip.models.packs.pack import find_pack
    from medclip.scoring.targets import class_of
    from medclip.scoring.tasks import asked_tasks

    if named == TOP:
        return
    pack = find_pack(model)
    card = read_card(pack)
    tasks = {one.task.name: one for one in asked_tasks(card, options, read_pack_texts(pack, card))}
    task, _, class_ = named.partition(":")
    if task not in tasks:
        raise MedclipError(
            Reason.WRONG_USE,
            f"heat maps of {task!r} cannot be drawn, which this run does not ask.",
            hint=did_you_mean(task, (TOP, *tasks), "Name one of"),
        )
    class_of(tasks[task], class_)


@dataclass(frozen=True)
class _One:
    """What is asked: one target."""

    target: Target

    def of(self, features_VD: NDArray[np.float32], modality: Modality | None, kind: Kind) -> tuple[Target, ...]:
        """Return it."""
        return (self.target,)

    def least_related(self, target: Target, feature_D: NDArray[np.float32], modality: Modality | None) -> None:
        """Return nothing: maps of a report are not checked."""


def _chosen(scores: Sequence[ScoreRow], named: str) -> ScoreRow | None:
    """Return the class that is drawn: of findings before choices the one of the highest probability."""
    task, _, class_ = named.partition(":")
    if named != TOP:
        scores = [s for s in scores if s.task == task and class_ in ("", s.class_)]
    findings = [score for score in scores if score.kind in independent_kinds()]
    first = [score for score in scores if score.task == scores[0].task]
    return max(findings or first, key=lambda score: score.probability, default=None)
