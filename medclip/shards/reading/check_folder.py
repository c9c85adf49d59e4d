"""Check a shard folder: the bytes against the index, the counts, and that no patient stands on two sides."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError
from medclip.files.stores import Place, local_copy, names_in, place_of
from medclip.files.tables.parquet_stream import read_stream
from medclip.result import Result, named_counts
from medclip.shards.folder import (
    HELD_OUT,
    INDEX,
    REJECT_COLUMNS,
    REJECTS,
    SAMPLE_COLUMNS,
    SAMPLES,
    SYNTHETIC,
    counts_of,
    read_index,
    shard_folder,
)
from medclip.shards.reading.foreign import ForeignSet, read_foreign
from medclip.shards.reading.samples import ShardReader
from medclip.shards.sample_json import from_json, views_of
from medclip.shards.stored_data import EXTENSION, EXTENSIONS, SIGNAL_FACTS, SIGNATURES, STORED_AS
from medclip.shards.writing.tar import member_names, members
from medclip.text.captions.record import CaptionRecord
from medclip.text.vocabulary.task import is_outcome, outcome_word


@dataclass(frozen=True, repr=False)
class ShardCheck(Result):
    """What was found in a shard folder, and what is wrong with it."""

    folder: Path | str
    """A URL where the folder lies in a store."""
    problems: tuple[str, ...]
    """One sentence each; empty when all is well."""
    num_samples: int
    counts_by_split: Mapping[str, int]
    patients_by_split: Mapping[str, int]
    counts_by_modality: Mapping[str, int]
    counts_by_source: Mapping[str, int]
    counts_by_reason: Mapping[str, int]
    """Rows that were rejected when the shards were built."""
    labels: Mapping[str, Mapping[str, int]]
    """Per task and class the number of samples that carry the label as present."""
    num_synthetic: int
    """Samples that were made, and are of no patient."""
    num_duplicates_across_splits: int
    """Samples whose file also lies, byte for byte, in another split under another patient; a problem if there are."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def _facts(self) -> dict[str, object]:
        return {
            "samples": f"{self.num_samples} ({named_counts(self.counts_by_split)})",
            "modalities": named_counts(self.counts_by_modality),
            **({"synthetic": self.num_synthetic} if self.num_synthetic else {}),
            "rejected": named_counts(self.counts_by_reason),
            "problems": f"{len(self.problems)}: {self.problems[0]}" if self.problems else "none",
            "folder": self.folder,
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        wrong = [{"what": "problem", "value": sentence, "count": 1} for sentence in self.problems]
        return [*wrong, *super()._rows()][:most]


def check_shards(folder: Place | str) -> ShardCheck:
    """Read every byte of a shard folder again and compare it with the index.

    Args:
        folder: Folder that `build_shards` or `index_shards` made, here or as a URL in a store. There each tar is read
            once, from front to back, into a temporary file.

    Returns:
        Counts, and one sentence for everything that is wrong: a missing, changed or foreign file, an unreadable or
        repeated sample, a count that differs, a patient or a file on two sides.

    Raises:
        MedclipError: MISSING_FILE or TABLE_INVALID when the folder has no index this version understands.
    """
    folder = place_of(folder)
    index = read_index(folder)
    problems: list[str] = []
    labels: dict[str, Counter[str]] = {}
    rows = _read(folder, index, SAMPLES, SAMPLE_COLUMNS, problems)
    rejects = _read(folder, index, REJECTS, REJECT_COLUMNS, problems)
    of = ForeignSet.from_dict(index["foreign"]) if "foreign" in index else None
    by_shard: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_shard.setdefault(row["shard"], []).append(row)
    base = shard_folder(folder, index)
    for shard in index["shards"]:
        problems += _shard(base / shard["name"], shard, by_shard.get(shard["name"], ()), of, labels)
    named = {s["name"] for s in index["shards"]} | {INDEX, SAMPLES, REJECTS}
    # What else lies beside the tars of others is their business, but a tar that is not indexed is not trained on.
    present = [name for name in names_in(base) if of is None or name.endswith(".tar")]
    strange = sorted(set(present) - named)
    if strange:
        problems.append(f"{len(strange)} files do not belong here: {', '.join(strange[:5])}.")
    problems += _whole(index, rows, rejects)
    return ShardCheck(
        folder=folder if isinstance(folder, Path) else str(folder),
        problems=tuple(problems),
        num_samples=len(rows),
        counts_by_split=counts_of(rows, "split"),
        patients_by_split={k: len(v) for k, v in sorted(_sets(rows, "split", "patient").items())},
        counts_by_modality=counts_of(rows, "modality"),
        counts_by_source=counts_of(rows, "source"),
        counts_by_reason=counts_of(rejects, "reason"),
        labels={task: dict(sorted(classes.items())) for task, classes in sorted(labels.items())},
        num_synthetic=sum(bool(row.get(SYNTHETIC)) for row in rows),
        num_duplicates_across_splits=len(_across(rows)),
    )


def _read(
    folder: Place, index: Mapping[str, Any], name: str, columns: Sequence[str], problems: list[str]
) -> list[dict[str, Any]]:
    try:
        with local_copy(folder / name) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != index["tables"].get(name):
                problems.append(f"{name} was changed since the build.")
            file.seek(0)
            table = read_stream(file)
    except FileNotFoundError:
        problems.append(f"{name} is missing.")
        return []
    except (OSError, ValueError) as e:
        problems.append(f"{name} cannot be read ({type(e).__name__}).")
        return []
    lacking = [c for c in columns if c not in table.column_names]
    if lacking:
        problems.append(f"{name} has no column {', '.join(lacking)}.")
        return []
    return table.to_pylist()


def _shard(
    path: Place,
    shard: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    of: ForeignSet | None,
    labels: dict[str, Counter[str]],
) -> Iterator[str]:
    try:
        with local_copy(path) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]:
                yield f"{path.name} was changed since the build."
            if len(rows) != shard["samples"]:
                yield f"{path.name} holds {shard['samples']} samples by the index, {len(rows)} by samples.parquet."
            for row in rows:
                try:
                    file.seek(row["offset"])
                    data = file.read(row["size"])
                    record = _sample(data, row) if of is None else _foreign_sample(data, row, of)
                except (MedclipError, tarfile.TarError, KeyError, ValueError, TypeError, AttributeError, OSError):
                    yield f"{path.name}: sample {row['key']} cannot be read."
                    continue
                _count_labels(record, labels)
    except (FileNotFoundError, IsADirectoryError):
        yield f"{path.name} is missing."


def _sample(data: bytes, row: Mapping[str, Any]) -> CaptionRecord:
    names = member_names(data)
    parts = members(data)
    views = views_of(parts)
    images = [v.member for v in views] or [e for e in (*STORED_AS.values(), EXTENSION) if e in parts]
    if names != [f"{row['key']}.{extension}" for extension in (*images, "json", "txt")]:
        raise ValueError("other members than expected")
    record, meta = from_json(parts["json"])
    if EXTENSION in parts:
        (ShardReader.recording if SIGNAL_FACTS in json.loads(parts["json"]) else ShardReader.voxels)(parts)
    elif not images or not all(parts[member].startswith(SIGNATURES) for member in images):
        raise ValueError("no image")
    if views and [view.sha256 for view in views] != str(row["sha256"]).split():
        raise ValueError("the views do not fit the table")
    if meta["patient"] != row["patient"] or meta["key"] != row["key"]:
        raise ValueError("the members do not fit the table")
    _compare_marks(meta, row)
    return record


def _compare_marks(meta: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    if bool(meta.get(SYNTHETIC)) != bool(row.get(SYNTHETIC)):
        raise ValueError("table and sample do not agree whether it is synthetic")


def _foreign_sample(data: bytes, row: Mapping[str, Any], of: ForeignSet) -> CaptionRecord:
    parts = members(data)
    if not _has_image(parts):
        raise ValueError("no image")
    record, meta = read_foreign(parts, of, row)
    _compare_marks(meta, row)
    return record


def _has_image(parts: Mapping[str, bytes]) -> bool:
    data = next((parts[e] for e in EXTENSIONS if e in parts), b"")
    return data.startswith(SIGNATURES)


def _count_labels(record: CaptionRecord, labels: dict[str, Counter[str]]) -> None:
    for task, label in record.labels.items():
        label = outcome_word(label) if is_outcome(label) else label
        present = [label] if isinstance(label, str) else [name for name, value in label.items() if value]
        labels.setdefault(task, Counter()).update(present)


def _whole(
    index: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], rejects: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    counts = index["counts"]
    for what, stated, counted in (
        ("samples by split", counts["by_split"], counts_of(rows, "split")),
        ("samples by modality", counts["by_modality"], counts_of(rows, "modality")),
        ("rejects by reason", counts["by_reason"], counts_of(rejects, "reason")),
    ):
        if stated != counted:
            yield f"The index counts {what} as {stated}, the tables as {counted}."
    synthetic = Counter(r["split"] for r in rows if r.get(SYNTHETIC) and r["split"].lower() in HELD_OUT)
    if synthetic:
        yield f"Synthetic samples stand in splits of evaluation: {named_counts(synthetic)}."
    repeated = [k for k, n in Counter(r["key"] for r in rows).items() if n > 1]
    if repeated:
        yield f"{len(repeated)} keys stand more than once, e.g. {repeated[0]}."
    tars = [s for s in _sets(index["shards"], "sha256", "split").values() if len(s) > 1]
    if tars:
        yield f"{len(tars)} tars stand in more than one split, byte for byte."
    torn = sorted(p for p, sides in _sets(rows, "patient", "split").items() if len(sides) > 1)
    if torn:
        yield f"{len(torn)} patients stand in more than one split (hashed): {', '.join(torn[:5])}."
    twins = _across(rows)
    if twins:
        yield (
            f"{len(twins)} samples lie in another split too, byte for byte, under another patient, e.g. {twins[0]}; "
            "what is measured on them is too good. Give equal files the same patient and build again."
        )


def _sets(rows: Sequence[Mapping[str, Any]], by: str, of: str) -> dict[str, set[str]]:
    sets: dict[str, set[str]] = {}
    for r in rows:
        sets.setdefault(r[by], set()).add(r[of])
    return sets


def _across(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the keys of samples with a file that lies in more than one split under more than one patient."""
    files = [{**r, "sha256": sha256} for r in rows for sha256 in str(r["sha256"]).split()]
    sides, patients = _sets(files, "sha256", "split"), _sets(files, "sha256", "patient")
    torn = [r["key"] for r in files if len(sides[r["sha256"]]) > 1 and len(patients[r["sha256"]]) > 1]
    return list(dict.fromkeys(torn))
