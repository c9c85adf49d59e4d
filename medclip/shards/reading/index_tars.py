"""Index WebDataset tars that others wrote, so that they are trained on where they lie, without copying them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from medclip.errors import MedclipError, Reason
from medclip.files.output import check_place, in_use, new_folder
from medclip.files.pseudonyms import keyed_hash, load_key
from medclip.files.stores import Place, RemotePath, local_copy, names_in, place_of
from medclip.progress import Progress, Silent
from medclip.result import Result, named_counts
from medclip.settings import Settings
from medclip.shards.folder import (
    INDEX,
    SAMPLE_COLUMNS,
    SYNTHETIC,
    arrow_table,
    claim_shards,
    refuse_held_out,
    write_index,
)
from medclip.shards.reading.foreign import FOREIGN, ForeignSet, is_empty_record, read_foreign
from medclip.shards.stored_data import EXTENSIONS
from medclip.shards.writing.tar import split_name

MAX_SAMPLE_BYTES = 256 << 20
"""Larger samples are left out: training reads a sample as one piece. It is also the most of a tar that is ever held."""
_READ = frozenset({*EXTENSIONS, "txt", "json"})
"""Members that are read; others are only stepped over."""


@dataclass(frozen=True, repr=False)
class IndexReport(Result):
    """What an index holds."""

    folder: Path
    """Where the index was written."""
    num_shards: int
    num_samples: int
    num_bytes: int
    counts_by_modality: Mapping[str, int]
    counts_by_reason: Mapping[str, int]
    """Samples left out, by reason."""
    num_duplicate_keys: int
    """Samples whose key stands before, in the same or another tar. They are kept: a key need not name one image."""
    num_duplicate_images: int
    """Samples whose image was there before, byte for byte. They are kept."""
    num_synthetic: int
    """Samples whose JSON says that they were made and are of no patient."""
    patient_from: str
    """Field of the JSON that names the patient, or "" where each sample counts as a patient of its own."""

    def _facts(self) -> dict[str, object]:
        return {
            "samples": f"{self.num_samples} in {self.num_shards} tars of {self.num_bytes / 1e6:.1f} MB",
            "modalities": named_counts(self.counts_by_modality),
            "left out": named_counts(self.counts_by_reason),
            **({"synthetic": self.num_synthetic} if self.num_synthetic else {}),
            "kept twice": f"{self.num_duplicate_keys} keys, {self.num_duplicate_images} images",
            "folder": self.folder,
        }


@dataclass
class _Tally:
    tables: list[Any] = field(default_factory=list)
    synthetic: int = 0
    rejects: list[dict[str, Any]] = field(default_factory=list)
    shards: list[dict[str, Any]] = field(default_factory=list)
    modalities: Counter[str] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)
    images: set[bytes] = field(default_factory=set)
    patients: set[str] = field(default_factory=set)
    names_patients: bool = False
    """Whether any sample says whose it is; the hashes of the others stand for a sample each."""
    duplicate_keys: int = 0
    duplicate_images: int = 0


def index_shards(
    folder: Place | str,
    of: ForeignSet,
    *,
    split: str = "train",
    out: Path | None = None,
    patient_field: str | None = None,
    keep_textless: bool = False,
    key: bytes | None = None,
    progress: Progress | None = None,
) -> IndexReport:
    """Make a folder of WebDataset tars ready for `medclip pretrain`; see `medclip.api.shards.index`.

    Args:
        folder: Folder of the tars, here or as a URL in a store, where each tar is read once from front to back.
        of: Name, licence and modality of the set.
        split: The split that all samples are put in.
        out: Folder of index.json and the two tables; `folder` where None, which a store does not allow.
        patient_field: Field of the JSON that names the patient.
        keep_textless: Whether images of which nothing is said are kept.
        key: Key for patient hashes; the identity key where None.
        progress: Progress bar of the tars.

    Raises:
        MedclipError: MISSING_FILE or NOTHING_TO_DO when there are no tars or no samples; OUTPUT_IN_USE when there is an
            index; CORRUPT naming the tar that cannot be read; WRONG_USE, also for synthetic samples in a split of
            evaluation; TABLE_INVALID when a sample has no such field.
    """
    folder = place_of(folder)
    tars = _tars(folder, of.source, split)
    if out is not None:
        claim_shards(Path(out))
    elif isinstance(folder, RemotePath):
        raise MedclipError(
            Reason.WRONG_USE, "the index of tars in a store is written here.", where=folder, hint="Name --out FOLDER."
        )
    elif (folder / INDEX).exists():
        remedy = f"Remove {INDEX} to index again, or write another one elsewhere with --out."
        raise in_use(folder, "this folder holds an index already", remedy)
    else:
        check_place(folder / INDEX, beside=True)
    key = key if key is not None else load_key(Settings())
    tally = _Tally()
    progress = progress or Silent()
    progress.stage("Tars", len(tars))
    for path in tars:
        _shard(path, split, of, patient_field, keep_textless, key, tally)
        progress.step()
    report = _report(Path(str(out or folder)), tally, patient_field)
    if not report.num_samples:
        why = ", ".join(f"{r} {n}" for r, n in report.counts_by_reason.items())
        raise MedclipError(
            Reason.NOTHING_TO_DO, f"none of the samples can be used ({why or 'there are none'}).", where=folder
        )
    refuse_held_out(folder, split, report.num_synthetic)
    _write(folder, out, of, split, tally, report)
    return report


def _tars(folder: Place, source: str, split: str) -> list[Place]:
    if isinstance(folder, Path) and not os.path.isdir(folder):  # unlike Path.is_dir, this takes any name
        what = "this is a file; tars lie in a folder." if os.path.exists(folder) else "there is no such folder."
        raise MedclipError(Reason.MISSING_FILE, what, where=folder, hint="Check the path.")
    if not source or not split.replace("_", "").isalnum():
        raise MedclipError(Reason.WRONG_USE, "name the source, and a split of letters, digits and underscores.")
    names = names_in(folder)
    tars = [folder / name for name in names if name.endswith(".tar")]
    if not tars:
        packed = next((name for name in names if ".tar." in name or name.endswith(".tgz")), None)
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            "there are no tars here" + (f" but compressed ones ({packed})." if packed else "."),
            where=folder,
            hint="Unpack them to plain .tar files: samples are read from the middle of a tar." if packed else "",
        )
    return tars


def _shard(
    path: Place, split: str, of: ForeignSet, field_name: str | None, keep_textless: bool, key: bytes, tally: _Tally
) -> None:
    rows = []
    try:
        with local_copy(path) as file:
            num_bytes = os.fstat(file.fileno()).st_size
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            for number, (name, offset, size, parts, fault) in enumerate(_samples(cast("IO[bytes]", file)), 1):
                row, problem = _row(path, sha256, split, name, number, parts, fault, of, field_name, key)
                if problem is not None and (not keep_textless or problem["reason"] != Reason.EMPTY_CAPTION):
                    tally.rejects.append(problem)
                    continue
                tally.duplicate_keys += name in tally.keys
                digest = bytes.fromhex(row["sha256"])
                tally.duplicate_images += digest in tally.images
                tally.keys.add(name)
                tally.images.add(digest)
                tally.patients.add(row["patient"])
                tally.names_patients |= row["patient"] != keyed_hash("patient", _place(sha256, name, number), key)
                tally.modalities[str(row["modality"])] += 1
                tally.synthetic += row[SYNTHETIC] is not None
                rows.append(row | {"offset": offset, "size": size})
    except (tarfile.TarError, OSError) as e:
        raise MedclipError(
            Reason.CORRUPT, f"this is not a whole tar ({e}).", where=path, hint="Fetch it again, or move it away."
        ) from e
    tally.tables.append(arrow_table(rows, (*SAMPLE_COLUMNS, SYNTHETIC)))
    tally.shards.append({"name": path.name, "split": split, "samples": len(rows), "bytes": num_bytes, "sha256": sha256})


def _samples(file: IO[bytes]) -> Iterator[tuple[str, int, int, dict[str, bytes], Reason | None]]:
    """Yield key, place and members of each run of members with one key, as WebDataset groups them.

    The last value is why a sample cannot be used, whatever its members hold; they are empty then.
    """
    with tarfile.open(fileobj=cast("IO[bytes]", _Bounded(file)), mode="r:") as tar:
        name, start, end, parts, fault = "", 0, 0, {}, None
        for info in tar:
            key, extension = split_name(info.name)
            if not info.isfile() or not extension:
                continue
            if key != name or extension in parts:
                if parts:
                    yield name, start, end - start, parts, fault
                name, start, parts, fault = key, info.offset, {}, None
            end = info.offset_data + -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            if info.issparse():  # its bytes do not lie in the tar one after the other
                fault = Reason.NOT_SUPPORTED_YET
            elif end - start > MAX_SAMPLE_BYTES:
                fault = Reason.TOO_LARGE
            if fault is not None:
                parts = dict.fromkeys((*parts, extension), b"")
                continue
            content = tar.extractfile(info) if extension in _READ else None
            parts[extension] = data = content.read() if content is not None else b""
            if content is not None and len(data) < info.size:
                raise tarfile.ReadError("it ends in the middle of a member")
        if parts:
            yield name, start, end - start, parts, fault


class _Bounded:
    """A tar of which no piece is read that is larger than the rest of the file, or than a sample may be."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        """Read.

        Raises:
            tarfile.ReadError: For a piece that is larger than a sample may be.
        """
        remaining = max(0, self._size - self._file.tell())
        wanted = remaining if size < 0 else min(size, remaining)
        if wanted > MAX_SAMPLE_BYTES:
            raise tarfile.ReadError(f"a header of {wanted / 1e6:.0f} MB")
        return self._file.read(wanted)


def _row(
    path: Place,
    tar: str,
    split: str,
    name: str,
    number: int,
    parts: Mapping[str, bytes],
    fault: Reason | None,
    of: ForeignSet,
    field_name: str | None,
    key: bytes,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the row of samples.parquet, and that of rejects.parquet where the sample cannot be used.

    `tar` is the sha256 of the tar: its name does not tell two sets apart (every set has a 000000.tar), and a copy of it
    in another split is the overlap that it is. `number` counts its samples from 1; `fault` is as in `_samples`.
    """
    extension = next((e for e in EXTENSIONS if e in parts), None)
    data = parts[extension] if extension else b""
    place = _place(tar, name, number)
    named = f"{of.source}\0{path.name}\0{place}"  # of two copies of a tar in one folder, too, no two keys are alike
    row: dict[str, Any] = {
        "key": hashlib.blake2b(named.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest(),
        "split": split,
        "shard": path.name,
        "sha256": None if fault else hashlib.sha256(data).hexdigest(),
        "patient": keyed_hash("patient", place, key),
        "modality": None,
        "adapter": FOREIGN,
        "source": of.source,
        SYNTHETIC: None,
    }
    reason: str | None = fault or (Reason.NO_PIXELS if not extension else _image_problem(data))
    if reason is None:
        try:
            if field_name is not None:
                row["patient"] = keyed_hash("patient", _patient(parts, field_name, path, number), key)
            record, meta = read_foreign(parts, of, row)
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
            reason = Reason.CORRUPT
        else:
            row["modality"] = None if record.modality is None else str(record.modality)
            row[SYNTHETIC] = "foreign" if meta.get(SYNTHETIC) else None
            if field_name is None:
                row["patient"] = meta["patient"]
            reason = Reason.EMPTY_CAPTION if is_empty_record(record) else None
    if reason is None:
        return row, None
    where = f"sample {number} of {path.name}"  # its own key may name a patient
    return row, {
        "row": number,
        "sha256": row["sha256"],
        "reason": str(reason),
        "message": where,
        "modality": row["modality"],
        "adapter": FOREIGN,
        "source": of.source,
    }


def _place(tar: str, name: str, number: int) -> str:
    return f"{tar}\0{name}\0{number - 1}"


def _image_problem(data: bytes) -> Reason | None:
    """Look at the head of an image; its pixels are decoded in training only."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
            return Reason.NOT_SUPPORTED_YET if image.mode.startswith(("I", "F")) else None
    except Exception:  # Pillow raises whatever it meets first in broken bytes
        return Reason.CORRUPT


def _patient(parts: Mapping[str, bytes], name: str, path: Place, number: int) -> str:
    value = json.loads(parts["json"]).get(name) if "json" in parts else None
    if value in (None, ""):
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"sample {number} has no field {name!r} in its JSON.",
            where=path,
            hint="Leave --patient-field out if the tars name no patients.",
        )
    return str(value)


def _report(folder: Path, tally: _Tally, patient_from: str | None) -> IndexReport:
    return IndexReport(
        folder=folder,
        num_shards=len(tally.shards),
        num_samples=sum(s["samples"] for s in tally.shards),
        num_bytes=sum(s["bytes"] for s in tally.shards),
        counts_by_modality=dict(sorted(tally.modalities.items())),
        counts_by_reason=dict(sorted(Counter(r["reason"] for r in tally.rejects).items())),
        num_duplicate_keys=tally.duplicate_keys,
        num_duplicate_images=tally.duplicate_images,
        num_synthetic=tally.synthetic,
        patient_from=patient_from or "",
    )


def _write(folder: Place, out: Path | None, of: ForeignSet, split: str, tally: _Tally, report: IndexReport) -> None:
    import pyarrow as pa

    base, samples = ".", pa.concat_tables(tally.tables)
    if not tally.synthetic:
        samples = samples.drop_columns(SYNTHETIC)
    if isinstance(folder, RemotePath):
        base = str(folder)
    elif out is not None:
        base = os.path.relpath(folder.resolve(), Path(out).resolve())
    with new_folder(Path(out)) if out is not None else nullcontext(Path(str(folder))) as work:
        write_index(
            work,
            samples,
            tally.rejects,
            shards=tally.shards,
            counts={
                "samples": report.num_samples,
                "by_split": {split: report.num_samples},
                "by_modality": dict(report.counts_by_modality),
                "by_reason": dict(report.counts_by_reason),
                "patients_by_split": {split: len(tally.patients)},
                "duplicates_across_splits": 0,
            },
            preprocessing={},
            options={"split": split, "patient_from_json": report.patient_from},
            columns=(),
            foreign={**of.to_dict(), "base": base, "names_patients": tally.names_patients},
        )
