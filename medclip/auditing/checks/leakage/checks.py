"""Whether the audit set leaks: files, patients or images that the model, or its thresholds, learned from.

Every check gives one row, also the one that could not be done: it has `tested` 0 and says why, so that silence is
never taken for absence. Rows hold counts only; which images they are about is listed beside them (`named`), for a
file that stays where the images are. "red" means that figures of the audit are too good to be believed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.checks.leakage.file_hashes import HashedFiles, burned_in_row
from medclip.auditing.checks.leakage.training_data import TrainingData, of_pack, of_shards, of_table
from medclip.auditing.checks.table import CheckRows
from medclip.auditing.input.read import patient_column
from medclip.files.pseudonyms import load_key, match_patients
from medclip.files.tables.table import PATIENTS, is_blank
from medclip.imaging.near_duplicates import Chance, Limits, measure_chance, near_duplicates
from medclip.imaging.registration import MOST_PAIRS, Registered, candidates, limit, register
from medclip.progress import Progress
from medclip.statistics.cohort import Cohort
from medclip.wording import count, list_of

if TYPE_CHECKING:
    from medclip.auditing.checks.evidence import Evidence

Row = dict[str, Any]
RED, NOTE = "red", "note"
_SPLIT = "split"


_Check = tuple[Row, Sequence[tuple[int, str, str]]]
"""The row of a check, and what it found: index in the cohort, what that meets, and how."""


def check_leakage(evidence: Evidence) -> CheckRows:
    """Look for everything that is shared with the training of the audited model: table `leakage`.

    Raises:
        MedclipError: What reading packs, shards, tables and embeddings raises; a bad image raises nothing.
    """
    files, vectors_ND, training = evidence.files, evidence.vectors_ND, _training(evidence)
    progress = evidence.progress
    progress.stage("Looking for overlap with training", 1)
    key = load_key(evidence.settings, path=evidence.options.image_checks.key_file) if training else None
    leaks = check(
        evidence.cohort,
        files,
        training=training,
        key=key,
        vectors_ND=vectors_ND,
        choosing=evidence.choosing,
        table_splits=_table_splits(evidence),
        progress=progress,
    )
    return replace(leaks, notes=evidence.image_notes)


def _training(evidence: Evidence) -> list[TrainingData]:
    """Read what the pack, shards and tables say of training."""
    sets = list(of_pack(evidence.pack.path)) if evidence.pack is not None else []
    for source in evidence.options.image_checks.training:
        if isinstance(source, str | Path):
            evidence.progress.stage("Reading training shards", 1)
            sets += of_shards(source)
        else:
            modality = evidence.modality if evidence.options.image_checks.images is not None else None
            column = source.find(*PATIENTS) or PATIENTS[0]
            sets.append(of_table(source, patient_from=column, modality=modality, settings=evidence.settings))
    return sets


def _table_splits(evidence: Evidence) -> tuple[Sequence[str], Sequence[str]] | None:
    """Return patient and split of every row of the label table, audited or not; None where it has no such columns."""
    table = evidence.label_table
    (patient, part), split = patient_column(table, evidence.reading), table.find(_SPLIT)
    if patient is None or split is None:
        return None
    cells = table.coded(patient)
    cells = cells if part is None else cells.mapped(part)
    return cells.texts_N().tolist(), table.coded(split).texts_N().tolist()


def check(
    cohort: Cohort,
    files: HashedFiles | None = None,
    *,
    training: Sequence[TrainingData] = (),
    key: bytes | None = None,
    vectors_ND: NDArray[np.float32] | None = None,
    choosing: Cohort | None = None,
    table_splits: tuple[Sequence[str], Sequence[str]] | None = None,
    progress: Progress | None = None,
) -> CheckRows:
    """Look for everything that the audit set shares with what the model and its thresholds were made from.

    Args:
        cohort: The audit set; its identities, where it has any, say who is who.
        files: Hashes of each of the cohort's rows, from `medclip.auditing.checks.leakage.file_hashes.hash_files`.
        training: Sets that the model was trained on and adapted with, from `of_pack`, `of_shards` and `of_table`.
        key: Identity key that patients were hashed with; None where it is not known.
        vectors_ND: Unit embeddings of the rows, which confirm near-duplicates inside the set.
        choosing: Cohort that thresholds were chosen on; None where they were not chosen from data.
        table_splits: Patient and split of each row of the whole label table, where it has a column of splits.
        progress: Progress bar of the pairs of images that are registered.

    Returns:
        Rows of the table `leakage` (check, found, tested, severity and sentence), and the images behind them: check,
        join key and file of the row, what it meets (`other`: the key of a row of the audit set, or the SHA-256 of a
        training file where it is known), and how it was found. These are not for a report.
    """
    checks: list[_Check] = []
    if not training:
        checks.append(_untested("training files", "nothing says what the model was trained on."))
    chance = _chance(cohort, files, vectors_ND)
    own_pairs = _OwnPairs.of(cohort, files, progress)
    for data in training:
        by_bytes = _shared_files(cohort, files, data)
        everybody = table_splits[0] if table_splits is not None else ()
        by_patient = _shared_patients(cohort, data, key, everybody, files_shared=bool(by_bytes[0]["found"]))
        checks += [by_bytes, by_patient, _shared_images(files, data, chance, own_pairs, progress)]
        checks += [_synthetic(data)] if data.num_synthetic else []
    checks += [_splits(table_splits), _choosing(cohort, choosing)]
    checks += [_copies(cohort, files), _near_copies(cohort, files, vectors_ND, chance, own_pairs)]
    checks.append((burned_in_row(files.burned_in if files is not None else (), len(cohort.patients_N)), ()))
    rows = [row for row, _ in checks]
    return CheckRows({"leakage": rows}, named=[one for check in checks for one in _named(cohort, *check)])


def _named(cohort: Cohort, row: Row, images: Iterable[tuple[int, str, str]]) -> Iterable[Row]:
    for i, other, how in images:
        file = cohort.files[i] if cohort.files else ""
        yield {"check": row["check"], "key": _key(cohort, i), "file": file, "other": other, "how": how}


def _key(cohort: Cohort, i: int) -> str:
    """Return the join key of a row, or its number among the audited rows where tables were not joined."""
    return cohort.keys[i] if cohort.keys else f"row {i + 1}"


def _row(
    check: str,
    num_shared: int,
    tested: int,
    sentence: str,
    *,
    red: bool = False,
    named: Iterable[tuple[int, str, str]] = (),
) -> _Check:
    severity = RED if red else NOTE
    row = {"check": check, "found": num_shared, "tested": tested, "severity": severity, "sentence": sentence}
    return row, tuple(named)


def _untested(check: str, why: str) -> _Check:
    return _row(check, 0, 0, f"Not tested: {why}")


def _synthetic(data: TrainingData) -> _Check:
    sentence = f"{data.num_synthetic:,} of {count(data.num_samples, 'sample')} of {data.name} are synthetic."
    return _row(f"synthetic samples: {data.name}", data.num_synthetic, data.num_samples, sentence)


def _shared_files(cohort: Cohort, files: HashedFiles | None, data: TrainingData) -> _Check:
    name = f"files shared with {data.name}"
    if data.sha256 is None:
        return _untested(name, f"the hashes of {data.name} are not known.")
    has_hash = np.array([bool(h) for h in files.sha256], bool) if files is not None else np.zeros(0, bool)
    if files is None or not has_hash.any():
        return _untested(name, "the files of the audit set were not read.")
    shared = np.array([h in data.sha256 for h in files.sha256], bool) & has_hash
    num_shared, tested = int(shared.sum()), int(has_hash.sum())
    if not num_shared:
        return _row(name, 0, tested, f"None of {tested} files is, byte for byte, among {data.name}.")
    patients = np.unique(cohort.patients_N[shared])
    others = int((np.isin(cohort.patients_N, patients) & ~shared).sum())
    more = f" ({count(others, 'further file')} of theirs not)" if others else ""
    sentence = (
        f"{num_shared} of {tested} files are, byte for byte, among {data.name}: {len(patients)} of "
        f"{cohort.num_patients} patients{more}. Figures over them say nothing of how the model does for new patients."
    )
    named = ((i, files.sha256[i], "the same bytes") for i in np.flatnonzero(shared).tolist())
    return _row(name, num_shared, tested, sentence, red=True, named=named)


def _shared_patients(
    cohort: Cohort, data: TrainingData, key: bytes | None, everybody: Sequence[str], *, files_shared: bool
) -> _Check:
    name = f"patients shared with {data.name}"
    if data.patients is None:
        return _untested(name, f"the patients of {data.name} are not known.")
    if not cohort.identities:
        return _untested(name, "the audit set does not name its patients.")
    whose = {p for p in cohort.identities if not is_blank(p)}
    shared = match_patients(whose, data.patients, key)
    if shared:
        sentence = (
            f"{len(shared)} of {len(whose)} patients are also in {data.name}. The model has seen other images of "
            "them, or these."
        )
        theirs = ((i, "", "the same patient") for i, patient in enumerate(cohort.identities) if patient in shared)
        return _row(name, len(shared), len(whose), sentence, red=True, named=theirs)
    if data.hashed and not files_shared and (proof := match_patients({*everybody} - whose, data.patients, key)):
        sentence = (
            f"None of {len(whose)} patients is among {data.name}. The key is right: {len(proof)} other patients of the "
            "table of labels are."
        )
        return _row(name, 0, len(whose), sentence)
    if data.hashed:
        under = "under the key that was given" if key else "(no key was given)"
        why = (
            f"of {data.name} only keyed hashes of patients are known, and none of {len(whose)} patients of the audit "
            f"set meets one of them {under}. "
        )
        why += (
            "As files are shared, patients are too: the key or the way of writing identifiers is another."
            if files_shared
            else "That is so where no patient is shared, and just as well where the key or the way of writing "
            "identifiers is another."
        )
        return _untested(name, why)
    sentence = f"None of {len(whose)} patients is in {data.name}, as far as both write identifiers alike."
    return _row(name, 0, len(whose), sentence)


def _chance(cohort: Cohort, files: HashedFiles | None, vectors_ND: NDArray[np.float32] | None) -> Chance | None:
    if files is None or not len(files.rows):
        return None
    rows = files.rows
    vectors = None if vectors_ND is None else vectors_ND[rows]
    return measure_chance(files.variants[0].take(rows), cohort.patients_N[rows], vectors_ND=vectors)


def _shared_images(
    files: HashedFiles | None,
    data: TrainingData,
    chance: Chance | None,
    own_pairs: _OwnPairs | None,
    progress: Progress | None,
) -> _Check:
    name = f"near-duplicates of {data.name}"
    if data.images is None or not len(data.images.rows):
        return _untested(name, f"there are no images of {data.name} to look at.")
    if files is None or not len(files.rows):
        return _untested(name, "no image of the audit set was read.")
    same_bytes = np.array([bool(files.sha256[i]) and files.sha256[i] in (data.sha256 or ()) for i in files.rows], bool)
    ours, theirs = files.rows[~same_bytes], data.images.rows
    if not len(ours):
        return _untested(name, f"all {len(files.rows)} images have the bytes of a training file, see above.")
    num_pairs = len(ours) * len(theirs) * len(files.variants)
    limits = chance.limits(num_pairs) if chance is not None else Limits()
    known_hashes = data.images.variants[0].take(theirs)
    shared: dict[int, tuple[int, str]] = {}
    for variant in files.variants:
        pairs = near_duplicates(variant.take(ours), known_hashes, limits=limits)
        for i, j, bits in zip(pairs.one_K.tolist(), pairs.other_K.tolist(), pairs.fine_K.tolist(), strict=True):
            shared.setdefault(int(ours[i]), (int(theirs[j]), f"{bits} of 255 bits differ"))
    turned, searched = _registered_with(files, data.images, own_pairs, same_bytes, progress)
    for i, (j, how) in turned.items():
        shared.setdefault(i, (j, how))
    digests = data.images.sha256
    named = ((i, digests[j], how) for i, (j, how) in sorted(shared.items()))
    left_out = f" {int(same_bytes.sum())} with the same bytes are not counted here." if same_bytes.any() else ""
    if shared:
        sentence = (
            f"Of {len(ours)} images, {count(len(shared), 'looks', 'look')} like one of the {len(theirs)} of "
            f"{data.name}, stored again, resized, brightened, cropped, rotated a little, mirrored or inverted."
            f"{left_out}"
        )
    else:
        sentence = f"None of {len(ours)} images looks like one of the {len(theirs)} of {data.name}.{left_out}"
    sentence = f"{sentence} {limits.caution}".rstrip() + searched
    return _row(name, len(shared), len(ours), sentence, red=bool(shared), named=named)


@dataclass(frozen=True, eq=False)
class _OwnPairs:
    """Pairs inside the audit set, registered: copies in it, and how alike its different patients are."""

    registered: Registered
    """By row of the audit set."""
    patients_N: NDArray[np.int32]
    num_images: int

    @classmethod
    def of(cls, cohort: Cohort, files: HashedFiles | None, progress: Progress | None) -> _OwnPairs | None:
        """Register the pairs; None where there are no small images."""
        if files is None or files.small_NHW is None or not len(files.small_rows):
            return None
        rows = files.small_rows[: int(MOST_PAIRS**0.5)]
        small = files.small_NHW[rows]
        pairs = register(small, small, candidates(small), progress=progress)
        pairs = Registered(rows[pairs.one_K], rows[pairs.other_K], pairs.correlation_K)
        return cls(pairs, cohort.patients_N, len(rows))

    def limit(self, num_pairs: int) -> float:
        """Return the least correlation of one image among so many pairs."""
        return limit(self.registered, self.patients_N, self.num_images, num_pairs)


def _registered_with(
    files: HashedFiles,
    training: HashedFiles,
    own_pairs: _OwnPairs | None,
    same_bytes: NDArray[np.bool_],
    progress: Progress | None,
) -> tuple[dict[int, tuple[int, str]], str]:
    """Find cropped and rotated copies of known images.

    Returns:
        For each row its copy and how it was found; and a sentence on what was not searched.
    """
    not_searched = " Copies cropped by more than 3 % or rotated were not looked for: "
    if own_pairs is None or files.small_NHW is None or training.small_NHW is None:
        return {}, f"{not_searched}only hashes of these images are known."
    ours = files.small_rows[~same_bytes[: len(files.small_rows)]]
    theirs = training.small_rows[: max(MOST_PAIRS // max(len(ours), 1), 1)]
    small, other = files.small_NHW[ours], training.small_NHW[theirs]
    registered = register(small, other, candidates(small, other), progress=progress)
    pairs = registered.at_least(own_pairs.limit(len(ours) * len(theirs)))
    order = np.argsort(-pairs.correlation_K, kind="stable")
    copies: dict[int, tuple[int, str]] = {}
    for i, j, r in zip(pairs.one_K[order], pairs.other_K[order], pairs.correlation_K[order], strict=True):
        copies.setdefault(int(ours[i]), (int(theirs[j]), _how(float(r))))
    unsearched = len(files.rows) - len(files.small_rows), len(training.rows) - len(theirs)
    words = [
        f"{count(n, 'image')} of {whose}" for n, whose in zip(unsearched, ("this set", "the other"), strict=True) if n
    ]
    return copies, f"{not_searched}{list_of(words)}, for there are too many." if words else ""


def _how(correlation: float) -> str:
    return f"registered, details correlate at {correlation:.2f}"


def _splits(table: tuple[Sequence[str], Sequence[str]] | None) -> _Check:
    name = "patients in several splits"
    if table is None:
        return _untested(name, "the table of labels has no column of splits and patients.")
    sides: dict[str, set[str]] = defaultdict(set)
    for patient, split in zip(*table, strict=True):
        if not is_blank(patient) and not is_blank(split):
            sides[patient].add(split.strip().lower())
    if not sides:
        return _untested(name, "no row of the table of labels states both patient and split.")
    torn = sum(len(splits) > 1 for splits in sides.values())
    if torn:
        stand = count(torn, "stands", "stand")
        sentence = f"Of {len(sides)} patients, {stand} in more than one split of the table of labels."
        return _row(name, torn, len(sides), sentence, red=True)
    return _row(name, 0, len(sides), f"Each of {len(sides)} patients stands in one split of the table of labels.")


def _choosing(cohort: Cohort, choosing: Cohort | None) -> _Check:
    name = "data that thresholds were chosen on"
    if choosing is None:
        return _untested(name, "no data that thresholds were chosen on was given.")
    keys, whose = set(cohort.keys), {p for p in cohort.identities if not is_blank(p)}
    shared_keys, shared_whose = len(keys & set(choosing.keys)), len(whose & set(choosing.identities))
    sides = []
    if keys and choosing.keys:
        sides.append(f"{shared_keys} of {count(len(keys), 'row')}")
    if whose and choosing.identities:
        sides.append(f"{shared_whose} of {count(len(whose), 'patient')}")
    if not sides:
        return _untested(name, "neither rows nor patients of both sets are named.")
    num_shared, tested = (shared_whose, len(whose)) if whose and choosing.identities else (shared_keys, len(keys))
    red = bool(shared_keys or shared_whose)
    sentence = f"Shared with the data that thresholds were chosen on: {list_of(sides)}."
    if red:
        sentence += " Figures at these thresholds are too good to be believed."
    met = set(choosing.keys), set(choosing.identities) & whose
    named = (
        (i, "", "in both")
        for i in range(len(cohort.patients_N))
        if (cohort.keys and cohort.keys[i] in met[0]) or (cohort.identities and cohort.identities[i] in met[1])
    )
    return _row(name, max(num_shared, int(red)), tested, sentence, red=red, named=named)


def _copies(cohort: Cohort, files: HashedFiles | None) -> _Check:
    name = "copies inside the audit set"
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(files.sha256 if files is not None else ()):
        if digest:
            rows_of[digest].append(row)
    tested = sum(map(len, rows_of.values()))
    if not tested:
        return _untested(name, "the files of the audit set were not read.")
    extra = tested - len(rows_of)
    torn = sum(len(set(cohort.patients_N[rows].tolist())) > 1 for rows in rows_of.values())
    if not extra:
        return _row(name, 0, tested, f"No two of {tested} rows have the same bytes.")
    of_two = count(torn, "of these images stands", "of these images stand")
    under = f" {of_two} under two or more patients." if torn else ""
    sentence = (
        f"Of {tested} rows, {count(extra, 'repeats', 'repeat')} the bytes of another row.{under} What is counted "
        "twice weighs twice, and intervals come out too narrow where copies count as different patients."
    )
    named = ((i, _key(cohort, rows[0]), "the same bytes") for rows in rows_of.values() for i in rows[1:])
    return _row(name, extra, tested, sentence, named=named)


def _near_copies(
    cohort: Cohort,
    files: HashedFiles | None,
    vectors_ND: NDArray[np.float32] | None,
    chance: Chance | None,
    own_pairs: _OwnPairs | None,
) -> _Check:
    name = "near-duplicates inside the audit set"
    if files is None or not len(files.rows):
        return _untested(name, "no image of the audit set was read.")
    rows = files.rows
    vectors = None if vectors_ND is None else vectors_ND[rows]
    limits = chance.limits(len(rows) * (len(rows) - 1) // 2) if chance is not None else Limits()
    pairs = near_duplicates(files.variants[0].take(rows), limits=limits, vectors_ND=vectors)
    alike = {
        (int(rows[i]), int(rows[j])): f"{bits} of 255 bits differ"
        for i, j, bits in zip(pairs.one_K, pairs.other_K, pairs.fine_K, strict=True)
    }
    if own_pairs is not None:
        turned = own_pairs.registered.at_least(own_pairs.limit(own_pairs.num_images * (own_pairs.num_images - 1) // 2))
        for i, j, r in zip(turned.one_K, turned.other_K, turned.correlation_K, strict=True):
            alike.setdefault((int(i), int(j)), _how(float(r)))
    digests, patients = files.sha256, cohort.patients_N
    alike = {(i, j): how for (i, j), how in alike.items() if not (digests[i] and digests[i] == digests[j])}
    apart = sum(bool(patients[i] != patients[j]) for i, j in alike)
    together = len(alike) - apart
    if not apart + together:
        sentence = f"No two of {len(rows)} images look alike enough to be one image. {limits.caution}"
        return _row(name, 0, len(rows), sentence.rstrip())
    sentence = (
        f"Pairs that look like one image, among {len(rows)} images: {together} of one patient, which is no "
        f"leakage, and {apart} under two patients, who may be one person or whose image was used twice. "
        f"Copies with the same bytes are not counted here. {limits.caution}"
    ).rstrip()
    named = ((i, _key(cohort, j), how) for (i, j), how in sorted(alike.items()))
    return _row(name, apart + together, len(rows), sentence, named=named)
