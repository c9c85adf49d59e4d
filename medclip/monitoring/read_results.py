"""What finished runs say of their files and studies, read for watching: texts are numbered, patients too.

A series counts once, not once for each of its slices: a unit is the row of its first file. What failed has no row in
the table of scores, so its patient is not known; such a unit is a patient of its own, or goes with its study.

They are divided into periods: weeks or months of the examinations, or the runs themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.embeddings.open_embeddings import Embeddings, is_embeddings, open_embeddings
from medclip.errors import MedclipError, Reason
from medclip.runs.outputs.results import EMBEDDED
from medclip.runs.outputs.score_run import read_run

if TYPE_CHECKING:
    import pyarrow as pa

NOT_STATED = "not stated"
SCORED = "scored"
UNIT_FACTS = ("modality", "view", "scanner", "site", "protocol")
"""What a mix is made of. Of scanners, sites and protocols the first letters of their keyed hashes, of runs with
--weeks."""
SEVERAL = "several"
"""Fact of a study whose images differ in it."""
_UNIT_COLUMNS = ("row", "unit", "status", "reason", "study", "modality", "view", "headers")
_HASH_SHOWN = 6
_HOME = "home_distance"
"""Column of runs whose pack knows the images that its figures were measured on."""
_SCORE_COLUMNS = ("study", "patient", "task", "class", "kind", "probability", "logit")


@dataclass(frozen=True, eq=False)
class Units:
    """The units of some runs: images, series, records."""

    patients_U: NDArray[np.int64]
    """Number of each unit's patient; the same number in `Questions`."""
    status_U: NDArray[np.object_]
    """scored, skipped or failed; "scored" also where it was embedded."""
    reason_U: NDArray[np.object_]
    """Of those that were not scored; "" for others."""
    facts: dict[str, NDArray[np.object_]]
    """Value of each of `UNIT_FACTS`; `NOT_STATED` where nothing states it."""
    distance_U: NDArray[np.float64]
    """How far from the images that the pack's figures were measured on; NaN where that is not known."""
    week_U: NDArray[np.object_]
    """ISO week; "" where the run wrote none."""
    run_U: NDArray[np.int64]
    """Which of the runs, from 0."""


@dataclass(frozen=True, eq=False)
class Question:
    """The scores of one class of one task."""

    task: str
    name: str
    """Of the class."""
    kind: str
    studies_N: NDArray[np.object_]
    patients_N: NDArray[np.int64]
    probability_N: NDArray[np.float64]
    logit_N: NDArray[np.float64]
    week_N: NDArray[np.object_]
    run_N: NDArray[np.int64]
    facts: dict[str, NDArray[np.object_]] = field(default_factory=dict)
    """Value of each of `UNIT_FACTS` that all scored units of a study share, else `SEVERAL`."""

    @property
    def title(self) -> str:
        """Task and class."""
        return f"{self.task}: {self.name}"


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors of studies, where runs of `medclip embed` were named."""

    vectors_ND: NDArray[np.float32]
    patients_N: NDArray[np.int64]
    week_N: NDArray[np.object_]
    run_N: NDArray[np.int64]
    pack: str
    """Which pack made them, by the hash of its image tower."""
    facts: dict[str, NDArray[np.object_]] = field(default_factory=dict)
    """As of `Question`."""


@dataclass(frozen=True, eq=False)
class Watched:
    """Some runs, read for watching."""

    runs: tuple[str, ...]
    """Names of their folders, in the order given; scores and embeddings of the same studies are one run."""
    packs: tuple[str, ...]
    """Name, version and hash of each folder's pack."""
    units: Units
    questions: tuple[Question, ...]
    vectors: Vectors | None
    notes: tuple[str, ...] = ()
    patients: dict[str, int] = field(default_factory=dict)
    """Numbers by hash."""


def folder_of(given: Any) -> Path:
    """Return the folder of results: it is named, or is that of what a verb returned."""
    return Path(given) if isinstance(given, (str, Path)) else Path(given.folder)


def read_results(folders: Sequence[Any], patients: dict[str, int] | None = None) -> Watched:
    """Read finished runs of `medclip score` and `medclip embed`.

    Args:
        folders: Output folders of the runs, or what the verbs returned.
        patients: Numbers of patients from runs that were read before: the same patient keeps its number.

    Raises:
        MedclipError: MISSING_FILE for a folder without a finished run; NOTHING_TO_DO where none was named; WRONG_USE
            for one that is named twice.
    """
    if not folders:
        raise MedclipError(Reason.NOTHING_TO_DO, "no results were named.", hint="Name output folders of medclip score.")
    numbers = {} if patients is None else patients
    names, packs, unit_parts, score_parts, vectors = [], [], [], [], []
    seen: list[tuple[set[bool], set[str]]] = []
    read: set[Path] = set()
    for given in folders:
        folder = folder_of(given)
        if folder.resolve() in read:
            raise MedclipError(
                Reason.WRONG_USE,
                "it is named twice, and its patients would count twice.",
                where=folder,
                hint="Name it once.",
            )
        read.add(folder.resolve())
        with _whole_tables(folder):
            is_embedded = isinstance(given, Embeddings) or is_embeddings(folder)
            run = open_embeddings(folder) if is_embedded else read_run(folder)
            description = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            packs.append(_pack(description))
            if is_embedded:
                assert isinstance(run, Embeddings)
                studies = run.columns("studies", ("study", "patient"))
                scores = None
            else:
                scores = _columns(folder / "scores.parquet", _SCORE_COLUMNS)
                studies = scores.select(["study", "patient"])
            owner = _owners(studies, numbers)
            number = _same_studies(seen, set(owner), is_embedded)
            units = _units(folder, owner, numbers, number)
            week_of, facts_of = _week_of(units), _facts_of(units)
            if number == len(seen):
                names.append(_name(folder))
                seen.append((set(), set(owner)))
                unit_parts.append(units)
            seen[number][0].add(is_embedded)
            if scores is not None:
                score_parts.append((scores, owner, week_of, facts_of, number))
            elif isinstance(run, Embeddings):
                vectors.append(_vectors(run, owner, week_of, facts_of, number))
    return Watched(
        tuple(names),
        tuple(packs),
        _joined_units([part for part, _ in unit_parts]),
        tuple(_questions(score_parts)),
        _joined_vectors(vectors),
        tuple(_notes(packs, vectors)),
        numbers,
    )


@contextmanager
def _whole_tables(folder: Path) -> Iterator[None]:
    """Turn what is said of a table that is cut, or another program's, into one sentence."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, AttributeError, RecursionError) as e:
        raise MedclipError(
            Reason.CORRUPT,
            "files.parquet, scores.parquet or run.json is not what medclip wrote.",
            where=folder,
            hint="Run the same medclip score or embed again: it writes its tables anew.",
        ) from e


def _same_studies(seen: Sequence[tuple[set[bool], set[str]]], studies: set[str], is_embedded: bool) -> int:
    """Return which run has most of these studies already: scores and embeddings of one night are one run."""
    for number, (kinds, others) in enumerate(seen):
        if is_embedded not in kinds and 2 * len(studies & others) > max(len(studies), len(others)):
            return number
    return len(seen)


def _name(folder: Path) -> str:
    return folder.resolve().name or str(folder)


def _pack(description: dict[str, Any]) -> str:
    model = description.get("model") or {}
    return f"{model.get('name', '?')} {model.get('version', '?')} {str(model.get('pack', ''))[:12]}".strip()


def _columns(path: Path, names: Sequence[str]) -> pa.Table:
    import pyarrow.parquet as pq

    stored = set(pq.read_schema(path).names)
    return pq.read_table(path, columns=[name for name in names if name in stored])


def _owners(studies: pa.Table, numbers: dict[str, int]) -> dict[str, int]:
    """Return the patient of each study; a study whose patient nobody names is a patient of its own."""
    pairs = studies.group_by(["study", "patient"]).aggregate([])
    owners = {}
    for study, patient in zip(pairs["study"].to_pylist(), pairs["patient"].to_pylist(), strict=True):
        owners[study] = numbers.setdefault(patient or f"study {study}", len(numbers))
    return owners


def _units(
    folder: Path, owner: dict[str, int], numbers: dict[str, int], number: int
) -> tuple[Units, NDArray[np.object_]]:
    """Return the units of a run, and the study of each."""
    import pyarrow.compute as pc

    table = _columns(folder / "files.parquet", (*_UNIT_COLUMNS, _HOME))
    is_first = pc.or_kleene(pc.is_null(table["unit"]), pc.equal(table["unit"], table["row"]))  # pyright: ignore
    table = table.filter(pc.fill_null(is_first, True))  # pyright: ignore[reportAttributeAccessIssue]
    texts = {name: _texts(table[name]) for name in ("status", "reason", "study", "modality", "view")}
    stated = _header_values(table["headers"])
    patients = np.empty(table.num_rows, np.int64)
    rows = table["row"].to_numpy()
    for place, study in enumerate(texts["study"]):
        known_owner = owner.get(study)
        alone = f"study {study}" if study else f"run {number} row {rows[place]}"
        patients[place] = numbers.setdefault(alone, len(numbers)) if known_owner is None else known_owner
    status = np.where(texts["status"] == EMBEDDED, SCORED, texts["status"])
    distance = np.full(table.num_rows, np.nan)
    if _HOME in table.column_names:
        distance = table[_HOME].to_numpy(zero_copy_only=False).astype(np.float64)
    facts = {"modality": texts["modality"], "view": texts["view"]} | {n: stated[n] for n in UNIT_FACTS if n in stated}
    facts = {name: np.where(values == "", NOT_STATED, values) for name, values in facts.items()}
    units = Units(patients, status, texts["reason"], facts, distance, stated["week"], np.full(len(rows), number))
    return units, texts["study"]


def _texts(column: Any) -> NDArray[np.object_]:
    """Return a column of texts; "" where it holds nothing."""
    values = np.array(column.to_pylist(), dtype=object)
    return np.where(values == None, "", values)  # noqa: E711 (an array is compared, value by value)


def _header_values(column: Any) -> dict[str, NDArray[np.object_]]:
    """Return week, scanner, site and protocol of each row; of few different headers each is read once."""
    coded = column.combine_chunks().dictionary_encode()
    headers = [json.loads(text) if text else {} for text in coded.dictionary.to_pylist()]
    places = coded.indices.fill_null(len(headers)).to_numpy(zero_copy_only=False).astype(np.int64)
    scanners = _scanners(headers)
    values = {
        "week": [str(header.get("week", "")) for header in headers],
        "scanner": scanners,
        "site": [_short(header.get("site")).strip("()") for header in headers],
        "protocol": [_joined(header.get("body_part"), _short(header.get("protocol"))) for header in headers],
    }
    return {name: np.array([*of_name, ""], dtype=object)[places] for name, of_name in values.items()}


def _scanners(headers: Sequence[dict[str, Any]]) -> list[str]:
    """Return maker, model and device of each header; what could not be read states the device alone."""
    devices = [str(header.get("device", "")) for header in headers]
    models = [_joined(header.get("manufacturer"), header.get("device_model")) for header in headers]
    model_of = {device: model for device, model in zip(devices, models, strict=True) if device and model}
    return [
        _joined(model or model_of.get(device), _short(device)) for device, model in zip(devices, models, strict=True)
    ]


def _joined(*texts: Any) -> str:
    return " ".join(filter(None, texts))


def _short(digits: Any) -> str:
    """Return as much of a keyed hash as tells devices of a hospital apart."""
    return f"({str(digits)[:_HASH_SHOWN]})" if digits else ""


def _facts_of(part: tuple[Units, NDArray[np.object_]]) -> dict[str, tuple[str, ...]]:
    """Return the facts of each study that all of its scored units share."""
    units, studies = part
    facts: dict[str, tuple[str, ...]] = {}
    scored = units.status_U == SCORED
    rows = zip(studies[scored], *(units.facts[name][scored] for name in UNIT_FACTS), strict=True)
    for study, *values in rows:
        known = facts.get(study)
        if known is None:
            facts[study] = tuple(values)
        elif known != tuple(values):
            facts[study] = tuple(a if a == b else SEVERAL for a, b in zip(known, values, strict=True))
    return facts


def _week_of(part: tuple[Units, NDArray[np.object_]]) -> dict[str, str]:
    """Return the first week of each study."""
    units, studies = part
    weeks: dict[str, str] = {}
    for study, week in zip(studies, units.week_U, strict=True):
        if week and (study not in weeks or week < weeks[study]):
            weeks[study] = week
    return weeks


_NO_FACTS = (NOT_STATED,) * len(UNIT_FACTS)


def _questions(
    parts: Sequence[tuple[pa.Table, dict[str, int], dict[str, str], dict[str, tuple[str, ...]], int]],
) -> Iterator[Question]:
    """Yield the questions of all runs, in the order in which they first stand."""
    columns: dict[tuple[str, str, str], list[tuple[NDArray[Any], ...]]] = {}
    for table, owner, week_of, facts_of, number in parts:
        studies, tasks, classes, kinds = (_texts(table[name]) for name in ("study", "task", "class", "kind"))
        probability, logit = (table[name].to_numpy() for name in ("probability", "logit"))
        patients = np.array([owner[study] for study in studies], np.int64)
        weeks = np.array([week_of.get(study, "") for study in studies], dtype=object)
        facts = np.array([facts_of.get(study, _NO_FACTS) for study in studies], dtype=object)
        facts = facts.reshape(len(studies), len(UNIT_FACTS))
        keys = [f"{task}\0{name}" for task, name in zip(tasks, classes, strict=True)]
        _, first, places = np.unique(np.array(keys, dtype=object), return_index=True, return_inverse=True)
        for code in np.argsort(first):
            rows = np.flatnonzero(places == code)
            key = (str(tasks[first[code]]), str(classes[first[code]]), str(kinds[first[code]]))
            values = (studies[rows], patients[rows], probability[rows], logit[rows], weeks[rows])
            columns.setdefault(key, []).append((*values, np.full(len(rows), number), facts[rows]))
    for (task, name, kind), of_runs in columns.items():
        studies, patients, probability, logit, weeks, runs, facts = (
            np.concatenate(values) for values in zip(*of_runs, strict=True)
        )
        of_facts: dict[str, Any] = dict(zip(UNIT_FACTS, facts.T, strict=True))
        yield Question(task, name, kind, studies, patients, probability, logit, weeks, runs, of_facts)


def _vectors(
    run: Embeddings,
    owner: dict[str, int],
    week_of: dict[str, str],
    facts_of: dict[str, tuple[str, ...]],
    number: int,
) -> Vectors:
    studies = run.columns("studies", ("study",))["study"].to_pylist()
    return Vectors(
        run.vectors("studies"),
        np.array([owner[study] for study in studies], np.int64),
        np.array([week_of.get(study, "") for study in studies], dtype=object),
        np.full(len(studies), number),
        run.pack.image_tower,
        {
            name: np.array([facts_of.get(study, _NO_FACTS)[place] for study in studies], dtype=object)
            for place, name in enumerate(UNIT_FACTS)
        },
    )


def _joined_units(parts: Sequence[Units]) -> Units:
    names = ("patients_U", "status_U", "reason_U", "distance_U", "week_U", "run_U")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    facts = {name: np.concatenate([part.facts[name] for part in parts]) for name in UNIT_FACTS}
    return Units(facts=facts, **arrays)


def _joined_vectors(parts: Sequence[Vectors]) -> Vectors | None:
    """Return the vectors of all runs; None where they are of several image towers, or there are none."""
    if len({part.pack for part in parts}) != 1:
        return None
    names = ("vectors_ND", "patients_N", "week_N", "run_N")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    facts = {name: np.concatenate([part.facts[name] for part in parts]) for name in UNIT_FACTS}
    return Vectors(pack=parts[0].pack, facts=facts, **arrays)


def _notes(packs: Sequence[str], vectors: Sequence[Vectors]) -> Iterator[str]:
    if len(set(packs)) > 1:
        yield f"The runs are of {len(set(packs))} packs: a change of scores may be the pack's, not that of the images."
    if len({part.pack for part in vectors}) > 1:
        yield "The embeddings are of several image towers and cannot be compared; they were left out."


NUM_FIRST = 4
"""Periods at the beginning that are the reference, where no other is named."""


@dataclass(frozen=True)
class Periods:
    """How time is divided."""

    by: str
    names: tuple[str, ...]
    """In order; those of the watched runs."""

    def codes(self, week_N: NDArray[Any], run_N: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return the period of each row, as an index into `names`; −1 where it has none."""
        if self.by == "run":
            return np.asarray(run_N, np.int64)
        number = {name: place for place, name in enumerate(self.names)}
        weeks, places = np.unique(np.asarray(week_N, str), return_inverse=True)
        codes = np.array([number.get(_named(week, self.by), -1) for week in weeks.tolist()], np.int64)
        return codes[places]


def periods_of(week_N: NDArray[Any], runs: Sequence[str], by: str | None) -> Periods:
    """Choose how time is divided.

    Args:
        week_N: ISO week of each unit; "" where its run wrote none.
        runs: Names of the runs.
        by: Unit of time: week, month or run; None: weeks where at least half of the units have one, else the runs.

    Raises:
        MedclipError: WRONG_USE for weeks where no unit has one.

    Example:
        >>> periods_of(np.array(["2024-W05", "2024-W06", ""]), ["a"], "month").names
        ('2024-02',)
    """
    weeks = np.asarray(week_N, str)
    stated = weeks != ""
    if by in ("week", "month") and not stated.any():
        raise MedclipError(
            Reason.WRONG_USE,
            f"no file of these results has a {by}.",
            hint="Score with --weeks, which writes the week of each examination; or watch --period run.",
        )
    chosen = by or ("week" if len(stated) and stated.mean() >= 0.5 else "run")
    if chosen == "run":
        return Periods(chosen, _distinct(runs))
    return Periods(chosen, tuple(sorted({_named(week, chosen) for week in np.unique(weeks[stated]).tolist()})))


def missing_weeks(names: Sequence[str]) -> list[str]:
    """Return the weeks between the first and the last that have no file.

    Example:
        >>> missing_weeks(["2024-W51", "2025-W02"])
        ['2024-W52', '2025-W01']
    """
    days = [_monday(name) for name in names]
    missing, day = [], min(days, default=date.min)
    while days and day < max(days):
        if day not in days:
            year, week, _ = day.isocalendar()
            missing.append(f"{year}-W{week:02}")
        day += timedelta(days=7)
    return missing


def _named(week: str, by: str) -> str:
    """Return the name of the period that a week lies in: a month has the weeks whose Thursday it has."""
    if by == "week" or not week:
        return week
    return (_monday(week) + timedelta(days=3)).strftime("%Y-%m")


def _monday(week: str) -> date:
    return date.fromisocalendar(int(week[:4]), int(week[6:]), 1)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return names that are told apart: two folders may be called alike."""
    return tuple(name if names.count(name) == 1 else f"{place}. {name}" for place, name in enumerate(names, 1))
