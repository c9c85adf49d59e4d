"""Who goes where: splits by patient, decided by a hash, so that a patient never changes sides when rows are added.

What a table was understood to hold, split by split, is reported before anything is read or written.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.grouping.mammography_exam import exam_view
from medclip.files.key_value import key_values
from medclip.files.pseudonyms import keyed_hash
from medclip.files.tables.cells import counts_of_strange
from medclip.result import Result, named_counts
from medclip.shards.sample_json import Group
from medclip.shards.writing.exam_groups import arrange_rows, group_rows
from medclip.shards.writing.table import GENERIC, ShardRow, read_shard_table
from medclip.text.vocabulary.task import is_outcome, outcome_word

DEFAULT_SPLITS: Mapping[str, float] = {"train": 0.7, "val": 0.1, "test": 0.2}


def place(patient: str, seed: int) -> float:
    """Return a patient's place in [0, 1): the first 53 bits of blake2b over the seed and the identifier."""
    digest = hashlib.blake2b(f"{seed}\0{patient}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def split_of(patient: str, splits: Mapping[str, float], seed: int) -> str:
    """Return the split whose share of [0, 1) holds the patient's place, in the order of `splits`."""
    at, upper = place(patient, seed), 0.0
    for name, share in splits.items():
        upper += share
        if at < upper:
            return name
    return [name for name, share in splits.items() if share > 0][-1]


def read_shares(splits: str | Sequence[str] | Mapping[str, float]) -> Mapping[str, float]:
    """Read shares as `--splits` takes them, several in a text or one in each; `DEFAULT_SPLITS` where there is none.

    Raises:
        MedclipError: WRONG_USE for what is no share.

    Example:
        >>> read_shares("train=0.8,test=0.2") == read_shares(["train=0.8", "test=0.2"])
        True
    """
    if isinstance(splits, Mapping):
        return splits or DEFAULT_SPLITS
    texts = [part for text in ([splits] if isinstance(splits, str) else splits) for part in text.split(",")]
    form = ",".join(f"{name}={share:g}" for name, share in DEFAULT_SPLITS.items())
    try:
        return {name: float(share) for name, share in key_values(texts, "--splits", form).items()} or DEFAULT_SPLITS
    except ValueError:
        raise MedclipError(Reason.WRONG_USE, f"--splits takes {form}, which {','.join(texts)!r} is not.") from None


def check_shares(splits: Mapping[str, float]) -> None:
    """Refuse shares that are none.

    Raises:
        MedclipError: WRONG_USE when they do not sum to 1.
    """
    if not splits or any(s < 0 for s in splits.values()) or abs(sum(splits.values()) - 1) > 1e-6:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the shares of the splits ({', '.join(f'{k}={v:g}' for k, v in splits.items())}) do not sum to 1.",
        )


def assign(rows: Sequence[ShardRow], splits: Mapping[str, float], seed: int, key: bytes) -> tuple[str, ...]:
    """Return every row its split. The table's own `split` stands, and holds for all rows of that patient.

    Args:
        rows: The table's rows.
        splits: Shares of the splits by name, which sum to 1.
        seed: Seed of the division.
        key: Key that names patients in the error, and is used for nothing else.

    Returns:
        One split name per row.

    Raises:
        MedclipError: WRONG_USE when the shares do not sum to 1; PATIENT_OVERLAP when the table puts a patient on two
            sides.
    """
    check_shares(splits)
    stated: dict[str, set[str]] = {}
    for row in rows:
        if row.split is not None:
            stated.setdefault(row.patient, set()).add(row.split)
    torn = sorted(keyed_hash("patient", p, key) for p, sides in stated.items() if len(sides) > 1)
    if torn:
        raise MedclipError(
            Reason.PATIENT_OVERLAP,
            f"the column `split` puts {len(torn)} patients on more than one side (hashed): {', '.join(torn[:5])}.",
            hint="Give all images of a patient the same split, or leave the column blank.",
        )
    return tuple(next(iter(stated.get(r.patient, ())), None) or split_of(r.patient, splits, seed) for r in rows)


_NAMED = 3
_SAID = ("present", "absent", "uncertain")


@dataclass(frozen=True, repr=False)
class ShardPlan(Result):
    """What a build of a table would do."""

    num_rows: int
    num_patients: int
    num_files: int
    num_missing_files: int
    missing_files: tuple[str, ...]
    """The first three, as the table writes them."""
    columns: tuple[str, ...]
    ignored_columns: tuple[str, ...]
    patient_from: str
    rows_by_split: Mapping[str, int]
    patients_by_split: Mapping[str, int]
    rows_by_modality: Mapping[str, int]
    """The generic renderings are counted apart, under `generic`."""
    rows_by_source: Mapping[str, int]
    rows_by_license: Mapping[str, int]
    rows_by_view: Mapping[str, int]
    """Of the views that captions have words for; `unknown` where the cell is blank or was not understood."""
    rows_by_laterality: Mapping[str, int]
    rows_by_sex: Mapping[str, int]
    rows_by_age: Mapping[str, int]
    """Known and unknown."""
    not_understood: Mapping[str, Mapping[str, int]]
    """Per column (view, laterality, sex) the most frequent values that are neither blank nor known."""
    labels: Mapping[str, Mapping[str, Mapping[str, int]]]
    """Per task and class: rows where it is `present` and, for multi-label tasks, `absent` or `uncertain` (-1)."""
    num_with_text: int
    num_with_report: int
    num_studies: int
    """Examinations that the table names; 0 where it has no column `study`."""
    rows_by_view_kind: Mapping[str, int] = field(default_factory=dict)
    """Of mammograms, where the table names kinds beside the standard one."""
    samples_by_views: Mapping[str, int] = field(default_factory=dict)
    """With `group`: samples by number of views, as far as the table alone tells; headers may know more."""
    rows_set_aside: Mapping[str, int] = field(default_factory=dict)
    """With `group`: rows that are none of the views of their examination, by reason."""

    @property
    def ok(self) -> bool:
        """Whether every file of the table is there."""
        return not self.num_missing_files

    def _facts(self) -> dict[str, object]:
        return {
            "rows": f"{self.num_rows} of {self.num_patients} patients ({named_counts(self.rows_by_split)})",
            "modalities": named_counts(self.rows_by_modality),
            "labels": ", ".join(self.labels),
            "with text": f"{self.num_with_text} captions, {self.num_with_report} reports",
            "views": named_counts(self.samples_by_views),
            "set aside": named_counts(self.rows_set_aside),
            "files": f"{self.num_files}, {self.num_missing_files} of them not there",
            "columns": ", ".join(self.columns),
            "not used": ", ".join(self.ignored_columns),
        }


def plan_shards(
    table: Any,
    *,
    splits: Mapping[str, float] = DEFAULT_SPLITS,
    seed: int = 0,
    key: bytes = b"",
    images: Path | None = None,
    patient: str | None = None,
    group: Group | None = None,
) -> ShardPlan:
    """Read and check a table and count what it holds; arguments and errors as in `build_shards`."""
    understood = read_shard_table(table, folder=images, patient_from=patient)
    rows = understood.rows
    sides = assign(rows, splits, seed, key)
    labels: dict[str, dict[str, Counter[str]]] = {}
    for row in rows:
        for task, label in row.record.labels.items():
            label = outcome_word(label) if is_outcome(label) else label
            for name, value in {label: 1}.items() if isinstance(label, str) else label.items():
                labels.setdefault(task, {}).setdefault(name, Counter())["present" if value else "absent"] += 1
        for task, name in row.uncertain:
            labels.setdefault(task, {}).setdefault(name, Counter())["uncertain"] += 1
    by_views, set_aside = _views(rows, group, understood.where)
    missing = list(dict.fromkeys(r.file for r in rows if not r.path.exists()))
    pairs = {(side, r.patient) for side, r in zip(sides, rows, strict=True)}
    return ShardPlan(
        num_rows=len(rows),
        num_patients=len({r.patient for r in rows}),
        num_files=len({r.file for r in rows}),
        num_missing_files=len(missing),
        missing_files=tuple(missing[:_NAMED]),
        columns=understood.columns,
        ignored_columns=understood.ignored,
        patient_from=understood.patient_from,
        rows_by_split=_counts(sides),
        patients_by_split=_counts(side for side, _ in pairs),
        rows_by_modality=_counts(GENERIC if r.record.generic else str(r.record.modality) for r in rows),
        rows_by_source=_counts(r.source or "(blank)" for r in rows),
        rows_by_license=_counts(r.license or "(blank)" for r in rows),
        rows_by_view=_counts(None if "view" in r.not_understood else r.record.view for r in rows),
        rows_by_laterality=_counts(r.record.laterality for r in rows),
        rows_by_sex=_counts(r.record.sex for r in rows),
        rows_by_age=_counts(None if r.record.age_years is None else "known" for r in rows),
        not_understood=counts_of_strange(cell for r in rows for cell in r.not_understood.items()),
        labels={
            task: {name: {k: n[k] for k in _SAID if n[k]} for name, n in sorted(classes.items())}
            for task, classes in sorted(labels.items())
        },
        num_with_text=sum(bool(r.record.texts) for r in rows),
        num_with_report=sum(bool(r.record.report) for r in rows),
        num_studies=len({(r.patient, r.study) for r in rows if r.study}),
        rows_by_view_kind=kinds if len(kinds := _counts(r.view_kind for r in rows)) > 1 else {},
        samples_by_views=by_views,
        rows_set_aside=set_aside,
    )


def _views(rows: Sequence[ShardRow], group: Group | None, where: str) -> tuple[dict[str, int], dict[str, int]]:
    """Count samples by number of views, and rows set aside by reason, from what the table states."""
    by_views: Counter[str] = Counter()
    set_aside: Counter[str] = Counter()
    for members in group_rows(rows, where) if group is not None else ():
        exam, _ = arrange_rows(members, [exam_view("", table=row.stated_view, file_name=row.file) for row in members])
        set_aside.update(str(reason) for _, reason in exam.set_aside)
        if group == "exam":
            by_views.update([str(len(exam.chosen))] if exam.chosen else [])
        else:
            by_views.update(str(n) for n in Counter(view.view.side for view in exam.chosen).values())
    return dict(sorted(by_views.items())), dict(sorted(set_aside.items()))


def _counts(values: Iterable[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(v or "unknown" for v in values).items()))
