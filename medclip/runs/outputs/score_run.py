"""A finished scoring run: its folder, its counts, its tables."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason
from medclip.result import Result
from medclip.runs.outputs.results import EXAM_SCORES, FILES, MAP_TABLE, REPORT, RUN, SCORES
from medclip.text.vocabulary.own_words import AD_HOC

if TYPE_CHECKING:
    import pyarrow


_NOTES_SHOWN = 3
NOT_LEARNED = "Not learned: "
"""How the `caution` of a row begins whose answer is one of them."""
UNLEARNED = "unlearned"
STEPS = "steps"
"""In a ledger: the steps of each task that is a scale, the lowest first."""
"""What run.json and the ledger hold the answers under that are worth little."""


@dataclass(frozen=True)
class Unlearned:
    """Answers of a run that are worth little, and why: they are shown grey."""

    modality: str
    """Of the studies."""
    task: str
    class_: str | None
    """None for all classes of the task."""
    reason: str
    """Half a sentence: "the model was trained on MRI images, not on CT"."""

    def is_about(self, modality: str, task: str, class_: str) -> bool:
        """Whether an answer is one of them."""
        return (self.modality, self.task) == (modality, task) and self.class_ in (None, class_)

    def to_json(self) -> dict[str, str | None]:
        """Return it as run.json has it."""
        return {"modality": self.modality, "task": self.task, "class": self.class_, "reason": self.reason}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Unlearned:
        """Read what `to_json` wrote."""
        return cls(values["modality"], values["task"], values["class"], values["reason"])


MEASURE_WORDS = (
    "What your own words are worth: medclip evaluate --data TABLE --prompt WORDS --label COLUMN, on labelled images "
    "and beside unrelated words."
)


def not_learned(caution: str | None) -> str:
    """Return the reason of a row's `caution` that says that the model was never taught this; blank for any other.

    Example:
        >>> not_learned("Not learned: the model was trained on MRI images, not on CT")
        'the model was trained on MRI images, not on CT'
    """
    text = caution or ""
    return text.removeprefix(NOT_LEARNED) if text.startswith(NOT_LEARNED) else ""


_ABOUT = ("modality", "task", "class")


@dataclass(frozen=True, eq=False, repr=False)
class ScoreRun(Result):
    """A finished run."""

    folder: Path
    """The output folder; that of the embeddings where a question was put to them and nothing was written."""
    counts: dict[str, int]
    """files, scored, skipped, failed, studies."""
    already_finished: bool = False
    """The folder held this very run, complete; nothing was computed or rewritten."""
    shard: str | None = None
    """Which shard of a run it is, as "2/8": it has counts and no tables until `medclip.runs.merge` puts the shards
    together."""
    _keep: object = None
    """Keeps a temporary output folder alive."""
    _tables: Mapping[str, pyarrow.Table] | None = None
    """Its tables by name, where a question was put to embeddings and nothing was written."""
    _notes: tuple[str, ...] | None = None
    """What is to be known of the question, in that case."""
    _unlearned: tuple[Unlearned, ...] | None = None
    """Which answers are worth little, in that case."""
    published: str | None = None
    """URL of the folder in an object store that has copies of the tables and the report; `folder` is then the work
    folder."""
    exported: Mapping[str, Any] | None = None
    """What was written for other systems, where that was asked for: `folder`, `written` (files by form) and `without`
    (studies by form and by why they have none), `stored` and `posted` (studies by whether a PACS and a FHIR
    server have their results)."""

    work: Mapping[str, Any] | None = None
    """Where the time of this call went: `wall_s`, and of "read", "decode", "model" and "write" their seconds over all
    processes and threads; see `medclip.runs.operations.work_seconds`."""

    answers: tuple[Mapping[str, Any], ...] = ()
    """Of a call that scored a few studies (`medclip.reports.score.study`) their answers as the report shows them, one
    mapping for each study; empty for more studies, and for a run that was read back: `scores` has those of all."""

    planned: Mapping[str, Any] | None = None
    """Of a dry run, which wrote nothing: files that would be read by `formats` and `modalities`, the others by
    `reasons`, and `done_before`, those that an earlier call dealt with."""

    @property
    def is_temporary(self) -> bool:
        """Whether the folder goes with this object."""
        return self._keep is not None

    @property
    def files(self) -> pyarrow.Table:
        """One row per input path."""
        self._refuse_shard()
        return _read(self.folder / FILES) if self._tables is None else self._tables["files"]

    @property
    def scores(self) -> pyarrow.Table:
        """One row per study, task and class."""
        self._refuse_shard()
        return _read(self.folder / SCORES) if self._tables is None else self._tables["scores"]

    def _refuse_shard(self) -> None:
        if self.shard is not None:
            raise shard_refusal(self.folder)

    @property
    def exam_scores(self) -> pyarrow.Table | None:
        """One row per mammography examination, breast and image, task and class; None where they were not asked."""
        if self._tables is not None:
            return self._tables.get("exam_scores")
        path = self.folder / EXAM_SCORES
        return _read(path) if path.exists() else None

    @property
    def maps(self) -> pyarrow.Table | None:
        """One row per image, task and structure, with the file of its map; None where no task asks for maps."""
        path = self.folder / MAP_TABLE
        return _read(path) if self._tables is None and path.exists() else None

    @property
    def table_rows_elsewhere(self) -> int:
        """Rows of the table that name no file below the path that was scored."""
        if self.shard is not None:
            return 0
        return _description(self.folder)["input"]["table_rows_elsewhere"]

    @property
    def notes(self) -> tuple[str, ...]:
        """What should be known of the questions: prompts whose answers are worth little, words that may be misspelt."""
        if self.shard is not None:
            return ()
        notes = _description(self.folder).get("notes") or () if self._notes is None else self._notes
        prompts = (one for one in self.unlearned if one.task == AD_HOC)
        reasons = [f"{'Your own words' if p.class_ is None else f'“{p.class_}”'}: {p.reason}." for p in prompts]
        return tuple(dict.fromkeys((*reasons, *notes, *([MEASURE_WORDS] if reasons else []))))

    @property
    def unlearned(self) -> tuple[Unlearned, ...]:
        """Answers that are worth little, and why: the model was never taught this, or nobody has measured it."""
        if self.shard is not None:
            return ()
        if self._unlearned is not None:
            return self._unlearned
        return tuple(map(Unlearned.from_json, _description(self.folder).get(UNLEARNED) or ()))

    @property
    def report_path(self) -> Path | None:
        """The first page of the report, None where none was written."""
        path = self.folder / REPORT
        return path if self.planned is None and path.exists() else None

    def _facts(self) -> dict[str, object]:
        counts = self.counts
        files = f"{counts['files']} ({counts['scored']} scored, {counts['skipped']} skipped, {counts['failed']} failed)"
        notes = {f"to be known {n}": note for n, note in enumerate(self.notes[:_NOTES_SHOWN], 1)}
        return {
            **({} if self.shard is None else {"shard": self.shard}),
            "files": files,
            "studies": counts["studies"],
            **notes,
            "folder": self.folder,
            "report": self.report_path or "none",
            **({} if self.published is None else {"published": self.published}),
            **({} if self.exported is None else {"results": self.exported["folder"]}),
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [] if self.shard is not None else self.scores.slice(0, most).to_pylist()

    def to_pandas(self) -> Any:
        """Return the scores as a pandas data frame, with `path` of each row's first file, as `files` has it.

        Raises:
            MedclipError: MISSING_CODEC where pandas is not installed.
        """
        frame = super().to_pandas()
        if "files" in frame.columns:
            paths = [next(iter(json.loads(names or "[]")), None) for names in frame["files"]]
            frame.insert(0, "path", paths)
        return frame

    def _caution(self, row: Mapping[str, Any]) -> str:
        if row.get("caution"):
            return row["caution"]
        about = (answers.reason for answers in self.unlearned if answers.is_about(*map(row.get, _ABOUT)))  # pyright: ignore[reportArgumentType]
        return next(about, "")

    @property
    def exit_code(self) -> int:
        """0 when every file was scored or skipped, 3 when some failed, or a server refused results."""
        sent = ((self.exported or {}).get(name) or {} for name in ("stored", "posted"))
        refused = sum(counts.get("refused", 0) for counts in sent)
        return 3 if self.counts["failed"] or refused else 0


def shard_refusal(folder: Path) -> MedclipError:
    """Return the refusal to show tables of a shard."""
    return MedclipError(
        Reason.MISSING_FILE,
        "a shard has no tables: studies may have files in other shards.",
        where=folder,
        hint="Put all shards together: medclip runs merge DIR... --out DIR.",
    )


def read_run(folder: str | Path) -> ScoreRun:
    """Read a finished run of `medclip score` from its output folder; nothing is computed.

    Args:
        folder: Folder that was given as `out`.

    Returns:
        The run, as `medclip.score` returned it.

    Raises:
        MedclipError: MISSING_FILE where the folder holds no finished run; CORRUPT where run.json cannot be read.
    """
    folder = Path(folder)
    lacking = [name for name in (FILES, SCORES, RUN) if not os.path.isfile(folder / name)]  # takes any name
    if lacking:
        raise MedclipError(
            Reason.MISSING_FILE,
            f"there is no finished scoring run here: {lacking[0]} is missing.",
            where=folder,
            hint="Name the folder that was given as --out; a run that was stopped is finished by the same command.",
        )
    return ScoreRun(folder, dict(_description(folder)["counts"]), already_finished=True)


def _description(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / RUN).read_text(encoding="utf-8"))
    except ValueError as e:
        raise MedclipError(Reason.CORRUPT, f"{RUN} is not what medclip score wrote.", where=folder / RUN) from e


def _read(path: Path) -> pyarrow.Table:
    import pyarrow.parquet as pq

    return pq.read_table(path)
