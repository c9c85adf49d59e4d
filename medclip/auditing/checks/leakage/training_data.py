"""What a model was trained on, as far as it can be known: from its pack, from shards, or from a table.

Patients are compared by name or by keyed hash (`medclip.files.pseudonyms.keyed_hash` of kind "patient"). Packs and
shards hold hashes only, made with the key that the shards were built with (`medclip shards build --key-file`) or, for
shots, with the key of whoever ran `medclip adapt`. Another key gives other hashes, and so does another way of writing
the same patient: hashes that meet prove that the key is right, hashes that do not meet prove nothing.
"""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.pack.adapted_model import DESCRIPTION
from medclip.auditing.checks.leakage.file_hashes import HashedFiles, hash_files, image_hashes
from medclip.errors import MedclipError, Reason
from medclip.files.tables.read_table import read_table
from medclip.files.tables.table import listed
from medclip.imaging.perceptual_hash import read_hash_lines
from medclip.models.packs.card import read_card, training_hashes, training_patients
from medclip.shards.folder import SYNTHETIC, read_index, sample_batches
from medclip.shards.reading.samples import ShardReader

if TYPE_CHECKING:
    from medclip.sample import Modality
    from medclip.settings import Settings

_NO_TRAINING = ("test", "testing")
"""Splits of a shard folder that nothing was learned from."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """One set of files that a model learned from."""

    name: str
    """In a sentence: "the training files of medclip-mini"."""
    sha256: frozenset[str] | None = None
    """Of each file; None where they are not known."""
    patients: frozenset[str] | None = None
    """Identifiers as a table writes them, or keyed hashes; None where they are not known."""
    hashed: bool = False
    """Whether `patients` are keyed hashes."""
    images: HashedFiles | None = None
    """What the images look like; None where there are none to look at."""
    num_samples: int = 0
    """Samples of shards, of which `num_synthetic` were made and not taken of a patient."""
    num_synthetic: int = 0


def of_pack(folder: str | Path) -> tuple[TrainingData, ...]:
    """Read what a model pack, or the checkpoint of an adaptation, says of its training files and of its shots.

    Returns:
        The base's training files, and the shots where there are any; each without what the pack does not list.

    Raises:
        MedclipError: PACK_INVALID for one that cannot be read.
    """
    place = Path(folder)
    if (place / DESCRIPTION).is_file():
        return (_shots(_checkpoint_shots(place / DESCRIPTION), "the adapted model"),)
    card = read_card(place)
    files, patients = training_hashes(place, card), training_patients(place, card)
    images = _image_hashes(place, card.image_hashes_file)
    name = f"the training files of {card.name}"
    if card.adapted is None:
        return (TrainingData(name, files, patients, hashed=True, images=images),)
    shots = _shots(_pack_shots(place / card.adapted.shots_file), card.name)
    name = f"the training files of its base {card.adapted.base}"
    # A pack's lists hold the shots too. One file can be both a shot and a training file: the card counts these.
    unlisted = card.adapted.num_in_training is None
    base = TrainingData(
        name,
        None if unlisted or files is None else files - (shots.sha256 or frozenset()),
        None if unlisted or patients is None else patients - (shots.patients or frozenset()),
        hashed=True,
        images=images,
    )
    return (base, shots)


def of_shards(folder: str | Path) -> tuple[TrainingData, ...]:
    """Read what a shard folder holds: one set for each split but the test split.

    Every image is decoded and hashed, so that near-duplicates can be looked for (1 to 2 ms each).

    Raises:
        MedclipError: What reading shards raises; NOTHING_TO_DO where there is no split to train on.
    """
    place = Path(folder)
    index = read_index(place)
    sha256s: defaultdict[str, set[str]] = defaultdict(set)
    patients: defaultdict[str, set[str]] = defaultdict(set)
    num_samples, num_synthetic = Counter[str](), Counter[str]()
    for batch in sample_batches(place, index):
        columns = (batch.column(name).to_pylist() for name in ("split", "sha256", "patient", SYNTHETIC))
        for split, sha256, patient, made_by in zip(*columns, strict=True):
            num_samples[split] += 1
            num_synthetic[split] += bool(made_by)
            sha256s[split].add(sha256)
            patients[split].add(patient)
    splits = [s for s in sorted(sha256s) if s.lower() not in _NO_TRAINING]
    if not splits:
        raise MedclipError(Reason.NOTHING_TO_DO, "these shards hold a test split only.", where=place)
    alone = "foreign" in index and not index["options"].get("patient_from_json")  # every sample is its own patient
    sets = []
    for split in splits:
        sets.append(
            TrainingData(
                f"the split {split!r} of the training shards",
                frozenset(sha256s[split]),
                None if alone else frozenset(p for p in patients[split] if p),
                hashed=True,
                images=_shard_images(place, split),
                num_samples=num_samples[split],
                num_synthetic=num_synthetic[split],
            )
        )
    return tuple(sets)


def of_table(
    table: Any,
    *,
    patient_from: str = "patient",
    modality: Modality | None = None,
    settings: Settings | None = None,
) -> TrainingData:
    """Read a table of training files, with a column `sha256`, `file`, or `patient`, or several of them.

    Rows whose column `split` says test are left out: nothing was learned from them.

    Args:
        table: Path of a CSV, TSV or Parquet file, whatever its suffix, or any data frame that narwhals knows. Relative
            files are relative to its folder (a frame: to the current one).
        patient_from: Column that names the patients, by identifiers or by keyed hashes.
        modality: Modality whose adapter reads the files.
        settings: Limits; where None files are not read, and the table must tell hashes or patients.

    Raises:
        MedclipError: MISSING_FILE, TABLE_INVALID for a table without any of these columns, NOTHING_TO_DO for one of
            test rows only.
    """
    read = read_table(table, "the table of training files").with_names(("sha256", "file", "split", patient_from))
    columns = [c for c in ("sha256", "file", patient_from) if c in read.names]
    if not columns or (columns == ["file"] and settings is None):
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"a table of training files has a column sha256, file or {patient_from}. {listed(read.names)}",
            where=read.where,
        )
    kept_N = np.asarray([split.lower() not in _NO_TRAINING for split in read.texts("split")])
    if not kept_N.any():
        raise MedclipError(Reason.NOTHING_TO_DO, "no row of this table was trained on.", where=read.where)
    used = read.take(kept_N)
    images = None
    if "file" in columns and settings is not None:
        base = read.path.parent if read.path else Path()
        images = hash_files([base / file if file else None for file in used.texts("file")], modality, settings)
    hashes = {text.lower() for text in used.texts("sha256")}
    hashes |= set(images.sha256) if images is not None else set()
    patients = frozenset(used.texts(patient_from)) - {""} if patient_from in columns else None
    name = "the table of training files"
    return TrainingData(name, frozenset(hashes - {""}) or None, patients, images=images)


def _shard_images(folder: Path, split: str) -> HashedFiles:
    with ShardReader(folder, split) as reader:

        def images() -> Iterator[NDArray[np.uint8]]:
            for i in range(len(reader)):
                yield from (np.asarray(image.convert("L")) for image in reader.images(reader.members(i)))

        return image_hashes(
            [sha256 for provenance in reader.provenance() for sha256 in provenance["files"]], images(), num_variants=1
        )


def _image_hashes(pack: Path, name: str | None) -> HashedFiles | None:
    """Read the perceptual hashes that a pack lists: copies that were stored again are found from these alone."""
    if name is None:
        return None
    try:
        hashes = read_hash_lines((pack / name).read_text(encoding="ascii").split())
    except (OSError, ValueError) as e:
        sentence = "the pack's list of image hashes cannot be read."
        raise MedclipError(Reason.PACK_INVALID, sentence, where=pack / name) from e
    return HashedFiles(("",) * len(hashes), (hashes,), np.ones(len(hashes), bool))


def _pack_shots(path: Path) -> list[tuple[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as f:
            return [(row["sha256"], row["patient"]) for row in csv.DictReader(f)]
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as e:
        raise MedclipError(Reason.PACK_INVALID, "the pack's list of shots cannot be read.", where=path) from e


def _checkpoint_shots(path: Path) -> list[tuple[str, str]]:
    try:
        shots = json.loads(path.read_text(encoding="utf-8"))["shots"]
        return [(str(shot["sha256"]), str(shot["patient"])) for shot in shots]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise MedclipError(Reason.PACK_INVALID, f"{DESCRIPTION} is damaged.", where=path) from e


def _shots(shots: Sequence[tuple[str, str]], model: str) -> TrainingData:
    files, patients = (frozenset(column) - {""} for column in (zip(*shots, strict=True) if shots else ((), ())))
    return TrainingData(f"the shots of {model}", files, patients, hashed=True)
