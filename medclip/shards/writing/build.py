"""Build shards: a table of images becomes WebDataset tars, split by patient, with an index of what is in them.

A row, or the rows of an examination, are written as one sample: its key, members and facts.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from medclip.adapters.model_images import DRAWN, DRAWN_OF, drawing_hash
from medclip.adapters.registry import slot
from medclip.errors import MedclipError, Problem, Reason
from medclip.files.output import new_folder
from medclip.files.pseudonyms import keyed_hash, load_key
from medclip.progress import Progress, Silent
from medclip.result import Result, named_counts
from medclip.sample import VIEW_KINDS
from medclip.settings import Settings
from medclip.shards.folder import EDIT_PAIR, GROUP, NUM_VIEWS, STRATUM, claim_shards, counts_of, write_index
from medclip.shards.folder import Stored as StoredKind
from medclip.shards.sample_json import VIEW_KIND, VIEWS, Group, to_json
from medclip.shards.stored_data import EXTENSION, STORED_AS, Format
from medclip.shards.writing.exam_groups import (
    ExamSample,
    ReadJob,
    ReadResult,
    StoredView,
    earlier_exams,
    group_rows,
    read_exam,
    read_rows,
)
from medclip.shards.writing.splits import DEFAULT_SPLITS, ShardPlan, assign
from medclip.shards.writing.table import GENERIC, ShardRow, read_shard_table
from medclip.shards.writing.tar import SHARD_NAME, TarShard
from medclip.text.captions.draw import draw_caption
from medclip.text.captions.record import CaptionRecord
from medclip.text.vocabulary.task import Task
from medclip.wording import count

Reject = tuple[ShardRow, ReadResult, Problem]
_Seen = Counter[tuple[str, bool, int]]


@dataclass(frozen=True)
class Form:
    """How samples are written."""

    max_side: int = 288
    """Longest side of stored images in pixels."""
    samples_per_shard: int = 500
    stored: Format = "png"
    quality: int = 95
    seed: int = 0
    """Decides splits, the order inside shards and the captions in the .txt members."""
    key: bytes = b""
    """For patient hashes; the identity key of the settings where it is empty."""
    stores: StoredKind = "images"
    """Volumes and ECGs are stored whole: voxels as the adapters read them, leads in microvolts at their own rate."""
    group: Group | None = None
    tasks: tuple[Task, ...] = ()
    """Those of the labels that the vocabulary does not have; captions say nothing of them."""


@dataclass(frozen=True)
class Entry:
    """One sample, ready to be written."""

    way: str
    """Whose preprocessing it had: a modality, or `generic`."""
    name: str
    sha256: str
    """Of the source file; of several views those of all, with a blank between."""
    meta: Mapping[str, Any]
    record: CaptionRecord
    members: Sequence[tuple[str, bytes]]
    num_views: int = 1
    stratum: str = ""
    """What it is drawn by, beside its source."""


def entries_of(
    rows: Sequence[ShardRow],
    results: Sequence[ReadResult],
    form: Form,
    seen: _Seen,
    earlier: Mapping[int, Sequence[tuple[str, int]]],
) -> tuple[list[Entry], list[Reject]]:
    """Make samples of rows that were read together: a row alone, or the mammograms of an examination.

    Args:
        rows: The rows.
        results: Result of reading each row.
        form: Form in which samples are written.
        seen: Counts of how often a content was met before, which tell apart the keys of equal ones.
        earlier: Earlier examinations of each row's patient, from `earlier_exams`.

    Returns:
        Samples, and the rows that are in none of them with their reasons.
    """
    if form.group is None:
        (row,), (result,) = rows, results
        rejects = [(row, result, result.problem)] if result.problem is not None else []
        return [_single(row, result, view, seen, form) for view in result.views], rejects
    samples, rejects = read_exam(rows, results, form.group, form.stored, form.tasks)
    entries = [_several(sample, seen, form, earlier.get(sample.rows[0].number, ())) for sample in samples]
    return entries, rejects


def _single(row: ShardRow, result: ReadResult, view: StoredView, seen: _Seen, form: Form) -> Entry:
    """Return the sample of one image, volume, loop or ECG."""
    generic = row.record.generic
    index = result.views.index(view)
    name = _new_key(seen, result.sha256, generic, index)
    record = row.record if row.record.view or generic else replace(row.record, view=view.position)
    record = replace(record, regions=view.regions)
    extension = STORED_AS[form.stored] if view.facts is None else EXTENSION
    way = slot(None if generic else record.modality, result.kind)
    meta = _meta(name, result.sha256, row, result, view.burned_in, form)
    if row.view_kind != VIEW_KINDS[0]:
        meta[VIEW_KIND] = row.view_kind
    members = [(extension, view.image), ("json", to_json(record, meta, view.facts)), _caption(name, record, form)]
    return Entry(way, name, result.sha256, meta, record, members, stratum=row.stratum)


def _several(sample: ExamSample, seen: _Seen, form: Form, earlier: Sequence[tuple[str, int]]) -> Entry:
    """Return the sample of several views."""
    row, first = sample.rows[0], sample.results[0]
    sha256 = " ".join(view.sha256 for view in sample.views)
    name = _new_key(seen, f"{form.group}\0{sha256}", False, 0)
    burned_in = [result.views[0].burned_in for result in sample.results]
    way = slot(sample.record.modality, first.kind)
    meta = _meta(name, sha256, row, first, any(burned_in) if None not in burned_in else None, form)
    if earlier:
        meta["earlier"] = [{"study": keyed_hash("study", exam, form.key), "days": days} for exam, days in earlier]
    views = {VIEWS: [view.to_dict() for view in sample.views]}
    images = [(v.member, result.views[0].image) for v, result in zip(sample.views, sample.results, strict=True)]
    members = [*images, ("json", to_json(sample.record, meta, views)), _caption(name, sample.record, form)]
    return Entry(way, name, sha256, meta, sample.record, members, len(sample.views), row.stratum)


def _new_key(seen: _Seen, content: str, generic: bool, index: int) -> str:
    occurrence = seen[content, generic, index]
    seen[content, generic, index] += 1
    return sample_key(content, generic=generic, view=index, occurrence=occurrence)


def _meta(
    name: str, sha256: str, row: ShardRow, result: ReadResult, burned_in: bool | None, form: Form
) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "key": name,
        "sha256": sha256,
        "patient": keyed_hash("patient", row.patient, form.key),
        "adapter": result.adapter,
        "preprocessing": result.preprocessing,
        "source": row.source,
        "license": row.license,
        "burned_in": burned_in,
    }
    if row.exam:
        meta["study"] = keyed_hash("study", row.exam, form.key)
    return meta


def _caption(name: str, record: CaptionRecord, form: Form) -> tuple[str, bytes]:
    """Return the text member: one caption, for other people's tools."""
    unsaid = {task.name for task in form.tasks}
    captioned = replace(record, labels={task: label for task, label in record.labels.items() if task not in unsaid})
    caption = draw_caption(captioned, np.random.default_rng([form.seed, int(name, 16)]))
    return "txt", caption.encode("utf-8")


def sample_key(sha256: str, *, generic: bool, view: int = 0, occurrence: int = 0) -> str:
    """Return a sample's key: a hash of the file's content and the rendering, so it survives renaming and moving.

    `occurrence` tells apart rows whose files have the same bytes.
    """
    content = f"{sha256}\0{GENERIC if generic else ''}\0{view}\0{occurrence}"
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


_TAR_BYTES = 1 << 30
"""Of a tar of volumes, ECGs or examinations."""


@dataclass(frozen=True, repr=False)
class ShardReport(Result):
    """What a build did."""

    folder: Path
    num_samples: int
    counts_by_split: Mapping[str, int]
    patients_by_split: Mapping[str, int]
    counts_by_reason: Mapping[str, int]
    """Rejected rows by reason."""
    counts_by_modality: Mapping[str, int]
    counts_by_views: Mapping[str, int]
    """Samples by number of their views; empty where each is one image."""
    shard_sha256: Mapping[str, str]
    preprocessing: Mapping[str, str]
    """Preprocessing hash by modality, `generic` for the generic rendering."""
    num_duplicates_across_splits: int
    """Samples whose file also lies, byte for byte, in another split under another patient."""
    planned: ShardPlan | None = None
    """What a dry run found in the table; it built nothing."""

    @classmethod
    def of_plan(cls, folder: Path, plan: ShardPlan) -> Self:
        """Return what a dry run did: nothing."""
        return cls(folder, 0, {}, {}, {}, {}, {}, {}, {}, 0, plan)

    def _facts(self) -> dict[str, object]:
        return {
            "samples": f"{self.num_samples} ({named_counts(self.counts_by_split)})",
            "patients": named_counts(self.patients_by_split),
            "modalities": named_counts(self.counts_by_modality),
            "views": named_counts(self.counts_by_views),
            "rejected": named_counts(self.counts_by_reason),
            "copies in another split": self.num_duplicates_across_splits,
            "folder": self.folder,
        }


@dataclass
class _Tally:
    samples: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    shards: list[dict[str, Any]] = field(default_factory=list)
    preprocessing: dict[str, str] = field(default_factory=dict)
    seen: Counter[tuple[str, bool, int]] = field(default_factory=Counter)


def build_shards(
    table: Any,
    out: Path,
    form: Form = Form(),
    *,
    splits: Mapping[str, float] = DEFAULT_SPLITS,
    images: Path | None = None,
    patient: str | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> ShardReport:
    """Read every image of a table through its adapter and write shards. The same input gives the same bytes.

    Args:
        table: Path of a CSV, TSV or Parquet file, or a data frame; see `medclip.shards.writing.table`.
        out: Folder to make; it must not exist or be empty. It appears only when the build is complete.
        form: Form in which samples are written.
        splits: Shares of the splits by name; a `split` column in the table goes before it.
        images: Folder that relative files are relative to; the table's own where None.
        patient: Column that names the patient, or "file" where every file is a patient of its own.
        settings: Limits and worker count.
        progress: Progress bar of the rows.

    Returns:
        What was built. A row that cannot be read becomes a row of rejects.parquet, never an error.

    Raises:
        MedclipError: TABLE_INVALID, PATIENT_OVERLAP, OUTPUT_IN_USE, DISK_FULL; NOTHING_TO_DO when no image at all could
            be read.
    """
    settings, progress = settings or Settings(), progress or Silent()
    claim_shards(Path(out))
    form = form if form.key else replace(form, key=load_key(settings))
    group, seed = form.group, form.seed
    understood = read_shard_table(table, folder=images, patient_from=patient, tasks=form.tasks)
    sides = assign(understood.rows, splits, seed, form.key)
    with new_folder(Path(out)) as work:
        tally = _Tally()
        rows_done = 0
        progress.stage("Rows", len(understood.rows))
        names = [*splits, *sorted(set(sides) - set(splits))]
        for split in names:
            rows = [r for r, side in zip(understood.rows, sides, strict=True) if side == split]
            units = [(row,) for row in rows] if group is None else group_rows(rows, understood.where)
            order = np.random.default_rng([seed, names.index(split)]).permutation(len(units))
            earlier = earlier_exams(rows) if group is not None else {}
            for _ in _write_split(split, [units[i] for i in order], work, tally, form, settings, earlier):
                rows_done += 1
                progress.step()
        if not tally.samples:
            why = ", ".join(f"{r} {n}" for r, n in sorted(Counter(x["reason"] for x in tally.rejects).items()))
            raise MedclipError(
                Reason.NOTHING_TO_DO,
                f"none of the {count(rows_done, 'row')} could be read ({why}), such as {understood.rows[0].file}.",
                where=understood.where,
                hint="Relative files are looked for beside the table; --images names another folder."
                if images is None
                else "Relative files are looked for in the folder of --images; without it, beside the table.",
            )
        report = _report(Path(out), tally, grouped=group is not None)
        options = {
            "max_side": form.max_side,
            "samples_per_shard": form.samples_per_shard,
            "splits": dict(splits),
            "seed": seed,
        }
        if form.stores != "images":
            options |= {form.stores: True}
        if group is not None:
            options |= {GROUP: group}
        if form.stored != "png":
            options |= {"format": form.stored, "quality": form.quality}
        write_index(
            work,
            tally.samples,
            tally.rejects,
            shards=tally.shards,
            counts=_indexcounts_of(report),
            preprocessing=report.preprocessing,
            options=options,
            columns=understood.columns,
        )
    return report


def _write_split(
    split: str,
    units: Sequence[tuple[ShardRow, ...]],
    work: Path,
    tally: _Tally,
    form: Form,
    settings: Settings,
    earlier: Mapping[int, Sequence[tuple[str, int]]],
) -> Iterator[None]:
    """Write the samples of a split; yields once for each row."""
    results = read_rows((_job(row, form) for unit in units for row in unit), settings)
    shard: TarShard | None = None
    number = 0
    try:
        for unit in units:
            of_unit = []
            for _ in unit:
                of_unit.append(next(results))
                yield
            entries, rejects = entries_of(unit, of_unit, form, tally.seen, earlier)
            tally.rejects += [_reject(*rejected) for rejected in rejects]
            for entry in entries:
                tally.preprocessing[entry.way] = entry.meta["preprocessing"]
                if entry.way == DRAWN_OF and form.stores == "images":
                    tally.preprocessing[DRAWN] = drawing_hash()
                if shard is None:
                    shard = TarShard(work / SHARD_NAME.format(split=split, number=number))
                    number += 1
                tally.samples.append(_add(shard, split, entry))
                large = form.stores != "images" or form.group is not None
                if shard.num_samples >= form.samples_per_shard or (large and shard.num_bytes >= _TAR_BYTES):
                    _close(shard, split, tally)
                    shard = None
        if shard is not None:
            _close(shard, split, tally)
            shard = None
    finally:
        if shard is not None:
            shard.__exit__(None, None, None)


def _job(row: ShardRow, form: Form) -> ReadJob:
    return ReadJob(
        row.path,
        None if row.record.generic else row.record.modality,
        form.max_side,
        row.mpp_um,
        form.stored,
        form.quality,
        form.stores,
        row.stated_view,
        row.regions,
        row.region_masks,
    )


def _add(shard: TarShard, split: str, entry: Entry) -> dict[str, Any]:
    """Write a sample; returns its row of samples.parquet."""
    offset, size = shard.add(entry.name, entry.members)
    modality = entry.record.modality
    return {
        "key": entry.name,
        "split": split,
        "shard": shard.path.name,
        "offset": offset,
        "size": size,
        "sha256": entry.sha256,
        "patient": entry.meta["patient"],
        "modality": None if modality is None else str(modality),
        "adapter": entry.meta["adapter"],
        "source": entry.meta["source"],
        "license": entry.meta["license"],
        NUM_VIEWS: entry.num_views,
        STRATUM: entry.stratum or None,
        EDIT_PAIR: next(iter(entry.record.edit_pairs), None),
    }


def _close(shard: TarShard, split: str, tally: _Tally) -> None:
    sha256, size = shard.close()
    tally.shards.append(
        {"name": shard.path.name, "split": split, "samples": shard.num_samples, "bytes": size, "sha256": sha256}
    )


def _reject(row: ShardRow, result: ReadResult, problem: Problem) -> dict[str, Any]:
    return {
        "row": row.number,
        "sha256": result.sha256,
        "reason": str(problem.reason),
        "message": problem.message,
        "modality": None if row.record.modality is None else str(row.record.modality),
        "adapter": GENERIC if row.record.generic else "",
        "source": row.source,
    }


def _report(out: Path, tally: _Tally, *, grouped: bool) -> ShardReport:
    sides: dict[str, set[str]] = {}
    patients: dict[str, set[str]] = {}
    for s in tally.samples:
        for sha256 in s["sha256"].split():
            sides.setdefault(sha256, set()).add(s["split"])
        patients.setdefault(s["split"], set()).add(s["patient"])
    return ShardReport(
        folder=out,
        num_samples=len(tally.samples),
        counts_by_split=counts_of(tally.samples, "split"),
        patients_by_split={k: len(v) for k, v in sorted(patients.items())},
        counts_by_reason=counts_of(tally.rejects, "reason"),
        counts_by_modality=counts_of(tally.samples, "modality"),
        counts_by_views=counts_of(tally.samples, NUM_VIEWS) if grouped else {},
        shard_sha256={s["name"]: s["sha256"] for s in tally.shards},
        preprocessing=dict(sorted(tally.preprocessing.items())),
        num_duplicates_across_splits=sum(any(len(sides[h]) > 1 for h in s["sha256"].split()) for s in tally.samples),
    )


def _indexcounts_of(report: ShardReport) -> dict[str, Any]:
    return {
        "samples": report.num_samples,
        "by_split": dict(report.counts_by_split),
        "by_modality": dict(report.counts_by_modality),
        "by_reason": dict(report.counts_by_reason),
        "patients_by_split": dict(report.patients_by_split),
        "duplicates_across_splits": report.num_duplicates_across_splits,
    }
