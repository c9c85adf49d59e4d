"""Read shards back by number: any sample of a split, in any order, without unpacking a tar."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.remote import Place, place_of
from medclip.result import Result
from medclip.shards.folder import read_index, read_samples, refuse_tars_in_two_splits, shard_folder
from medclip.shards.reading.columns import Columns, coded
from medclip.shards.reading.foreign import ForeignSet, read_foreign
from medclip.shards.reading.shard_cache import ShardCache, ShardFile
from medclip.shards.reading.shard_files import ShardFiles, Verify
from medclip.shards.sample_json import from_json
from medclip.shards.stored_image import EXTENSIONS, decode
from medclip.shards.writing.tar import members
from medclip.text.captions.record import CaptionRecord
from medclip.wording import count

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image


def no_split(split: str, folder: Place | str, indexes: Sequence[Mapping[str, Any]]) -> MedclipError:
    """Return the refusal of a split that none of some shard folders has."""
    known = sorted({s for index in indexes for s in index["counts"]["by_split"]})
    hint = did_you_mean(str(split), known, "Splits are")
    return MedclipError(Reason.WRONG_USE, f"there is no split {split!r}.", where=folder, hint=hint)


@dataclass(frozen=True, eq=False, repr=False)
class ShardSample(Result):
    """One stored image with what is known of it."""

    image: NDArray[np.uint8]
    """H x W x 3; grey images have three equal channels."""
    record: CaptionRecord
    key: str
    meta: Mapping[str, Any]
    """sha256 of the source file, patient and study hashes, adapter, preprocessing, source, license."""

    def _facts(self) -> dict[str, object]:
        height, width = self.image.shape[:2]
        record = {name: value for name, value in vars(self.record).items() if value and name not in ("texts", "report")}
        return {"image": f"{width} x {height} pixels", **record, "source": self.meta.get("source")}

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [{"key": self.key, **self.meta}]


class ShardReader:
    """Random access to one split of one or several shard folders. Safe in threads; travels to other processes.

    Args:
        folder: What `build_shards` or `index_shards` made, here or as a URL in a store (s3://, https://, http://);
            several are numbered one after the other.
        split: One of its splits. Of several folders each that has it takes part.
        verify: What is compared with the index when a shard is first opened: "full" is size and sha256 (and the hash of
            the table of samples), "size" the size only, "none" nothing. What comes out of a store is always hashed.
        cache: Where what comes out of a store is kept on this node; 50 GB in `cache/shards` of MEDCLIP_HOME where None.

    Raises:
        MedclipError: MISSING_FILE, TABLE_INVALID or WRONG_USE when the folder or the split is not there;
            PREPROCESSING_MISMATCH or PATIENT_OVERLAP when several folders do not go together.
    """

    def __init__(
        self,
        folder: Place | str | Sequence[Place | str],
        split: str,
        *,
        verify: Verify = "size",
        cache: ShardCache | None = None,
    ) -> None:
        import pyarrow as pa

        self.folders = tuple(map(place_of, [folder] if isinstance(folder, Place | str) else folder))
        self.cache = cache or ShardCache.at()
        self.split = split
        self.verify: Verify = verify
        indexes = [read_index(f) for f in self.folders]
        self.preprocessing = _preprocessing(self.folders, indexes)
        refuse_tars_in_two_splits(self.folders, indexes)
        tables, numbers = [], []
        shards: list[ShardFile] = []
        self._foreign: list[ForeignSet | None] = []
        sides: dict[str, bool] = {}
        for where, index in zip(self.folders, indexes, strict=True):
            table = read_samples(where, index, verify=verify == "full", cache=self.cache)
            if len(self.folders) > 1:
                _refuse_overlap(where, table, sides, split)
            own = _shards(where, index, split)
            number = {s.name: len(shards) + i for i, s in enumerate(own)}
            table = table.filter(np.array([s == split for s in table["split"].to_pylist()]))
            numbers.append(_numbers(table, number, where))
            tables.append(table)
            shards += own
            foreign = ForeignSet.from_dict(index["foreign"]) if "foreign" in index else None
            self._foreign += [foreign] * len(own)
        self.index = indexes[0] if len(indexes) == 1 else _merged(indexes, self.preprocessing)
        self._table = pa.concat_tables(tables).combine_chunks()
        if not len(self._table):
            raise no_split(split, self.folder, indexes)
        self._shard = np.concatenate(numbers)
        self._place = np.stack([self._table[c].to_numpy() for c in ("offset", "size")])
        self._files = ShardFiles(shards, verify, self.cache)

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        """Return what it reads, in one line."""
        return f"ShardReader({self.split}, {count(len(self), 'sample')} in {count(len(self.shards), 'tar')})"

    def __getitem__(self, i: int) -> ShardSample:
        """Read sample number i.

        Raises:
            IndexError: There is no such number.
            MedclipError: CORRUPT when the bytes are not what the index says; see `ShardFiles.read` for the others.
        """
        parts = self.members(i)
        record, meta = self.understand(i, parts)
        try:
            pixels = np.asarray(self.image(parts).convert("RGB"))
        except MedclipError as e:
            raise MedclipError(e.reason, f"sample {self.key(i)}: {e.message}", where=self._path(i)) from e
        return ShardSample(pixels, record, self.key(i), meta)

    def record(self, i: int) -> tuple[CaptionRecord, Mapping[str, Any]]:
        """Read what is known of sample i without decoding its image."""
        return self.understand(i, self.members(i))

    def key(self, i: int) -> str:
        """Return the key of sample i without reading it."""
        return self._table["key"][i].as_py()

    def row(self, i: int) -> dict[str, Any]:
        """Return the row of samples.parquet of sample i."""
        return {name: self._table[name][i].as_py() for name in self._table.column_names}

    @property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """The split's rows of samples.parquet, in order. Made anew each time; `columns` is for many samples."""
        return tuple(self._table.to_pylist())

    def provenance(self) -> Iterator[dict[str, Any]]:
        """Yield source, license, sha256, patient and modality of every sample, without reading its bytes.

        Folders of earlier versions do not have the license in their table; there each sample is read for it.
        """
        wanted = ("source", "license", "sha256", "patient", "modality")
        i = 0
        for batch in self._table.select(wanted).to_batches(max_chunksize=1 << 16):
            for row in batch.to_pylist():
                if row["license"] is None:
                    row["license"] = self._license(i)
                yield row
                i += 1

    def _license(self, i: int) -> str | None:
        foreign = self._foreign[self._shard[i]]
        if foreign is not None:
            return foreign.license
        try:
            return self.record(i)[1].get("license")
        except MedclipError:  # a damaged sample
            return None

    @property
    def folder(self) -> Place:
        """The first folder."""
        return self.folders[0]

    @property
    def shards(self) -> tuple[ShardFile, ...]:
        """The split's shards, in order."""
        return self._files.shards

    @cached_property
    def columns(self) -> Columns:
        """Shard, source and modality of every sample."""
        source, sources = coded(self._table["source"].to_pylist())
        modality, modalities = coded(self._table["modality"].to_pylist())
        return Columns(self._shard, len(self.shards), source, sources, modality, modalities)

    @property
    def shard_hashes(self) -> tuple[str, ...]:
        """sha256 of each of the split's shards, in order: they hold pixels, texts and the numbering of samples."""
        return tuple(s.sha256 for s in self.shards)

    def raw(self, i: int) -> bytes:
        """Read the bytes of sample i: its tar members, headers included.

        Raises:
            IndexError: There is no such number.
            MedclipError: The shard is gone or not what the index says; see `ShardFiles.read`.
        """
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        return self._files.read(int(self._shard[i]), int(self._place[0, i]), int(self._place[1, i]))

    @property
    def is_remote(self) -> bool:
        """Whether any of the shards lies in a store."""
        return self._files.is_remote

    def want(
        self, now: Sequence[int], soon: Sequence[int] = (), *, keep: bool = False, in_processes: bool = False
    ) -> None:
        """Have shards of a store brought here before they are read; as `ShardFiles.want`."""
        self._files.want(now, soon, keep=keep, in_processes=in_processes)

    def members(self, i: int) -> dict[str, bytes]:
        """Read the members of sample i: extension to content.

        Raises:
            IndexError, MedclipError: As `raw`; CORRUPT when they are no members.
        """
        return self.unpack(i, self.raw(i))

    def unpack(self, i: int, raw: bytes) -> dict[str, bytes]:
        """Take the bytes of sample i apart.

        Raises:
            MedclipError: CORRUPT.
        """
        try:
            return members(raw)
        except tarfile.TarError as e:
            raise self._corrupt(i, e) from e

    def understand(self, i: int, parts: Mapping[str, bytes]) -> tuple[CaptionRecord, Mapping[str, Any]]:
        """Read record and meta from the members of sample i.

        Raises:
            MedclipError: CORRUPT.
        """
        foreign = self._foreign[self._shard[i]]
        try:
            return from_json(parts["json"]) if foreign is None else read_foreign(parts, foreign, self.row(i))
        except (KeyError, ValueError, TypeError, AttributeError) as e:
            raise self._corrupt(i, e) from e

    @staticmethod
    def image(parts: Mapping[str, bytes], wanted_px: int | None = None) -> Image.Image:
        """Decode the image among a sample's members; see `medclip.shards.stored_image.decode`.

        Raises:
            MedclipError: MISSING_FILE when there is none, and those of `decode`.
        """
        for extension in EXTENSIONS:
            if extension in parts:
                return decode(parts[extension], wanted_px)
        raise MedclipError(Reason.MISSING_FILE, "the sample has no image.")

    def close(self) -> None:
        """Close the tars."""
        self._files.close()

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _path(self, i: int) -> Place:
        return self.shards[self._shard[i]].path

    def _corrupt(self, i: int, error: Exception) -> MedclipError:
        kind = type(error).__name__
        return MedclipError(Reason.CORRUPT, f"sample {self.key(i)} is not readable ({kind}).", where=self._path(i))


def _shards(folder: Place, index: Mapping[str, Any], split: str) -> list[ShardFile]:
    base = shard_folder(folder, index)
    return [
        ShardFile(base / s["name"], s["name"], split, s["samples"], s.get("bytes"), s["sha256"])
        for s in index["shards"]
        if s["split"] == split
    ]


def _numbers(table: Any, number: Mapping[str, int], folder: Place) -> NDArray[np.int32]:
    named = table["shard"].to_pylist()
    try:
        return np.fromiter((number[name] for name in named), np.int32, len(named))
    except KeyError as e:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"samples.parquet names the shard {e.args[0]}, which the index does not.",
            where=folder,
        ) from None


def _preprocessing(folders: Sequence[Place], indexes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    if len(set(folders)) < len(folders) or not folders:
        raise MedclipError(Reason.WRONG_USE, "name at least one shard folder, and each only once.")
    merged: dict[str, str] = {}
    for folder, index in zip(folders, indexes, strict=True):
        for way, recorded in index["preprocessing"].items():
            if merged.setdefault(way, recorded) != recorded:
                raise MedclipError(
                    Reason.PREPROCESSING_MISMATCH,
                    f"its images of the kind {way} were rendered in another way than those of the folders before it.",
                    where=folder,
                    hint="Build all folders with the same version of medclip.",
                )
    return dict(sorted(merged.items()))


def _refuse_overlap(folder: Place, table: Any, sides: dict[str, bool], split: str) -> None:
    """Refuse a patient who is in this split in one folder and in another split in another."""
    here = {False: set[str](), True: set[str]()}
    for patient, side in zip(table["patient"].to_pylist(), table["split"].to_pylist(), strict=True):
        here[side == split].add(patient)
    torn = {p for inside, patients in here.items() for p in patients if sides.get(p, inside) != inside}
    if torn:
        raise MedclipError(
            Reason.PATIENT_OVERLAP,
            f"{len(torn)} patients are in the split {split!r} here or in a folder before, and in another split in the "
            f"other one (hashed): {', '.join(sorted(torn)[:3])}.",
            where=folder,
            hint="Build the folders with the same seed and splits, or from one table.",
        )
    for inside, patients in here.items():
        sides.update(dict.fromkeys(patients, inside))


def _merged(indexes: Sequence[Mapping[str, Any]], preprocessing: Mapping[str, str]) -> dict[str, Any]:
    return {"shards": [s for i in indexes for s in i["shards"]], "preprocessing": dict(preprocessing)}
