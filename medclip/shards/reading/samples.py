"""Read shards back by number: any sample of a split, in any order, without unpacking a tar."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.output import digest_of
from medclip.files.stores import Place, place_of
from medclip.imaging.ecg.recording import Recording
from medclip.imaging.volume.voxels import Voxels, middle_image
from medclip.result import Result
from medclip.shards.folder import (
    GROUP,
    SAMPLES,
    STORED_WORDS,
    SYNTHETIC,
    Stored,
    check_samples,
    read_index,
    refuse_held_out,
    refuse_tars_in_two_splits,
    sample_batches,
    shard_folder,
)
from medclip.shards.reading.foreign import ForeignSet, read_foreign
from medclip.shards.reading.mapped_rows import Columns, MappedRows, SelectedRows, map_rows
from medclip.shards.reading.shard_cache import ShardCache, ShardFile
from medclip.shards.reading.shard_files import ShardFiles, Verify
from medclip.shards.sample_json import SampleView, from_json, views_of
from medclip.shards.selection import Selection
from medclip.shards.stored_data import (
    DRAFT_GAP,
    EXTENSION,
    EXTENSIONS,
    SIGNAL_FACTS,
    VOLUME_FACTS,
    decode,
    decode_signal,
    decode_voxels,
    size_px,
)
from medclip.shards.writing.tar import members
from medclip.text.captions.record import CaptionRecord
from medclip.wording import count, number

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

_NO_IMAGE = np.zeros((0, 0, 3), np.uint8)
_ROWS_VERSION = 2
"""Of the form of mapped rows."""


def no_split(split: str, folder: Place | str, indexes: Sequence[Mapping[str, Any]]) -> MedclipError:
    """Return the refusal of a split that none of some shard folders has."""
    splits = sorted({s for index in indexes for s in index["counts"]["by_split"]})
    hint = did_you_mean(str(split), splits, "Splits are")
    return MedclipError(Reason.WRONG_USE, f"there is no split {split!r}.", where=folder, hint=hint)


@dataclass(frozen=True, eq=False, repr=False)
class ShardSample(Result):
    """One stored image, volume, loop or ECG with what is known of it."""

    image: NDArray[np.uint8]
    """H x W x 3; grey images have three equal channels. The middle slice or frame of a volume or loop; of an ECG, which
    has no image, 0 x 0 x 3."""
    record: CaptionRecord
    key: str
    meta: Mapping[str, Any]
    """sha256 of the source file, patient and study hashes, adapter, preprocessing, source, license."""
    voxels: Voxels | None = None
    """The volume or loop, where the shards hold such."""
    views: tuple[SampleView, ...] = ()
    """Of a mammography examination or breast: what is known of each view, in hanging order."""
    images: tuple[NDArray[np.uint8], ...] = ()
    """Their images, in the form of `image`, which is the first of them."""
    recording: Recording | None = None
    """The ECG as its file has it, where the shards hold such; `medclip.imaging.ecg.twelve_leads.canonical` makes the
    twelve leads of it."""

    def _facts(self) -> dict[str, object]:
        record = {name: value for name, value in vars(self.record).items() if value and name not in ("texts", "report")}
        height, width = self.image.shape[:2]
        size = {"image": f"{width} x {height} pixels"} if self.voxels is None else {"volume": repr(self.voxels)}
        if self.recording is not None:
            size = {"ECG": repr(self.recording)}
        several = {"views": ", ".join(view.view.slot or "" for view in self.views)} if self.views else {}
        return {**size, **several, **record, "source": self.meta.get("source")}

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [{"key": self.key, **self.meta}]


class ShardReader:
    """Random access to one split of one or several shard folders. Safe in threads; travels to other processes.

    Args:
        folder: Folder that `build_shards` or `index_shards` made, here or as a URL in a store (s3://, https://,
            http://); several are numbered one after the other.
        split: Name of a split. Of several folders each that has it takes part.
        verify: Comparison with the index when a shard is first opened: "full" is size and sha256 (and the hash of the
            table of samples), "size" the size only, "none" nothing. What comes out of a store is always hashed.
        cache: Cache on this node for what comes out of a store; 50 GB in `cache/shards` of MEDCLIP_HOME where None.
        selection: Selection of the samples that are read, as if there were no others; all of them where None.

    Raises:
        MedclipError: MISSING_FILE, TABLE_INVALID or WRONG_USE when the folder or the split is not there, or the
            selection is of other shards; NOTHING_TO_DO when it keeps nothing of the split;
            PREPROCESSING_MISMATCH or PATIENT_OVERLAP when several folders do not go together.
    """

    def __init__(
        self,
        folder: Place | str | Sequence[Place | str],
        split: str,
        *,
        verify: Verify = "size",
        cache: ShardCache | None = None,
        selection: Selection | None = None,
    ) -> None:
        self.folders = tuple(map(place_of, [folder] if isinstance(folder, Place | str) else folder))
        self.cache = cache or ShardCache.at()
        self.split = split
        self.verify: Verify = verify
        indexes = [read_index(f) for f in self.folders]
        self.preprocessing = _preprocessing(self.folders, indexes)
        self.holds: Stored = _holds(self.folders, indexes)
        """What its samples are: images, volumes or loops (`voxels`), or ECGs (`recording`)."""
        self.holds_views = any((index.get("options") or {}).get(GROUP) for index in indexes)
        """Whether samples may hold several views (`views`, `images`)."""
        refuse_tars_in_two_splits(self.folders, indexes)
        shards: list[ShardFile] = []
        self._foreign: list[ForeignSet | None] = []
        self._names_patients: list[bool] = []
        for where, index in zip(self.folders, indexes, strict=True):
            shards_of_index = _shards(where, index, split)
            shards += shards_of_index
            foreign = ForeignSet.from_dict(index["foreign"]) if "foreign" in index else None
            self._foreign += [foreign] * len(shards_of_index)
            self._names_patients += [index.get("foreign", {}).get("names_patients", True)] * len(shards_of_index)
        self.index = indexes[0] if len(indexes) == 1 else _merged(indexes, self.preprocessing)
        if not shards:
            raise no_split(split, self.folder, indexes)
        if verify == "full":
            for where, index in zip(self.folders, indexes, strict=True):
                check_samples(where, index, cache=self.cache)
        rows = map_rows(
            _identity(self.folders, indexes, split),
            split,
            [s.name for s in shards],
            lambda: _batches(self.folders, indexes, split, self.cache),
        )
        if not len(rows):
            raise no_split(split, self.folder, indexes)
        self._rows: MappedRows | SelectedRows = rows
        self.weight_N: NDArray[np.float32] | None = None
        """Weights of the selection; None where every sample counts as 1."""
        self.num_of_split = len(rows)
        """Samples of the split, those among them that no selection keeps."""
        if selection is not None:
            self._rows, self.weight_N = _selected(rows, selection, split, self.folder)
        self._files = ShardFiles(shards, verify, self.cache)

    def __len__(self) -> int:
        return len(self._rows)

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
            voxels = self.voxels(parts) if self.holds == "volumes" else None
            recording = self.recording(parts) if self.holds == "signals" else None
            images = self.images(parts) if self.holds == "images" else ()
        except MedclipError as e:
            raise MedclipError(e.reason, f"sample {self.key(i)}: {e.message}", where=self._path(i)) from e
        pixels = tuple(np.asarray(image.convert("RGB")) for image in images)
        views = self.views(i, parts)
        first = pixels[0] if pixels else _NO_IMAGE if voxels is None else middle_image(voxels)
        return ShardSample(first, record, self.key(i), meta, voxels, views, pixels if views else (), recording)

    def record(self, i: int) -> tuple[CaptionRecord, Mapping[str, Any]]:
        """Read what is known of sample i without decoding its image."""
        return self.understand(i, self.members(i))

    def key(self, i: int) -> str:
        """Return the key of sample i without reading it."""
        return self._rows.key(i)

    def row(self, i: int) -> dict[str, Any]:
        """Return the row of samples.parquet of sample i."""
        return self._rows.row(i)

    @property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """The split's rows of samples.parquet, in order. Made anew each time; `columns` is for many samples."""
        return tuple(row for part in self._rows.parts() for row in part)

    def provenance(self) -> Iterator[dict[str, Any]]:
        """Yield source, license, patient and modality of every sample, and sha256 of its `files`; none is read.

        `names_patient` is False where the patient's hash only stands for the sample: foreign tars that name nobody.
        Folders of earlier versions do not have the license in their table; there each sample is read for it.
        """
        i, everywhere = 0, all(self._names_patients)
        for rows in self._rows.parts():
            for row in rows:
                cells = {name: row[name] for name in ("source", "license", "sha256", "patient", "modality")}
                if cells["license"] is None:
                    cells["license"] = self._license(i)
                cells["names_patient"] = everywhere or self._names_patients[self._rows.place(i)[0]]
                cells["files"] = tuple(cells.pop("sha256").split())
                yield cells
                i += 1

    def patients(self, limit: int) -> list[str | None]:
        """Return the keyed hash of the patient of each of the first samples; None where the shards name nobody."""
        everywhere = all(self._names_patients)
        hashes = (row["patient"] for rows in self._rows.parts() for row in rows)
        return [
            hashed if hashed and (everywhere or self._names_patients[self._rows.place(i)[0]]) else None
            for i, hashed in enumerate(islice(hashes, limit))
        ]

    def _license(self, i: int) -> str | None:
        foreign = self._foreign[self._rows.place(i)[0]]
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
        return self._rows.columns()

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
        return self._files.read(*self._rows.place(i))

    @property
    def is_remote(self) -> bool:
        """Whether any of the shards lies in a store."""
        return self._files.is_remote

    def want(
        self, now: Sequence[int], soon: Sequence[int] = (), *, keep: bool = False, in_processes: bool = False
    ) -> None:
        """Have shards of a store brought here before they are read."""
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
        foreign = self._foreign[self._rows.place(i)[0]]
        try:
            return from_json(parts["json"]) if foreign is None else read_foreign(parts, foreign, self.row(i))
        except (KeyError, ValueError, TypeError, AttributeError) as e:
            raise self._corrupt(i, e) from e

    def views(self, i: int, parts: Mapping[str, bytes]) -> tuple[SampleView, ...]:
        """Read which views sample i holds from its members; none for a sample of one image.

        Raises:
            MedclipError: CORRUPT.
        """
        if not self.holds_views:
            return ()
        try:
            return views_of(parts)
        except (KeyError, ValueError, TypeError, AttributeError) as e:
            raise self._corrupt(i, e) from e

    @staticmethod
    def image(parts: Mapping[str, bytes], wanted_px: int | None = None, gap: float = DRAFT_GAP) -> Image.Image:
        """Decode the one image among a sample's members; see `medclip.shards.stored_data.decode`.

        Raises:
            MedclipError: MISSING_FILE when there is none, NOT_SUPPORTED_YET when there are several; and those of
                `decode`.
        """
        members = _images(parts)
        if len(members) > 1:
            raise MedclipError(
                Reason.NOT_SUPPORTED_YET, f"the sample holds {len(members)} views, and one image is asked for."
            )
        return decode(parts[members[0]], wanted_px, gap)

    @staticmethod
    def images(
        parts: Mapping[str, bytes], wanted_px: int | None = None, gap: float = DRAFT_GAP
    ) -> tuple[Image.Image, ...]:
        """Decode all images among a sample's members: one, or its views in hanging order.

        Raises:
            MedclipError: MISSING_FILE when there is none; and those of `medclip.shards.stored_data.decode`.
        """
        return tuple(decode(parts[member], wanted_px, gap) for member in _images(parts))

    @staticmethod
    def size_px(parts: Mapping[str, bytes]) -> tuple[int, int]:
        """Read width and height of the first image among a sample's members, without decoding it.

        Raises:
            MedclipError: MISSING_FILE when there is none, CORRUPT.
        """
        return size_px(parts[_images(parts)[0]])

    @staticmethod
    def voxels(parts: Mapping[str, bytes]) -> Voxels:
        """Read the volume or loop among a sample's members.

        Raises:
            MedclipError: MISSING_FILE when there is none, CORRUPT.
        """
        if EXTENSION not in parts:
            raise MedclipError(Reason.MISSING_FILE, "the sample has no volume.")
        facts = json.loads(parts["json"]).get(VOLUME_FACTS) or {}
        return decode_voxels(parts[EXTENSION], facts)

    @staticmethod
    def recording(parts: Mapping[str, bytes]) -> Recording:
        """Read the ECG among a sample's members, as its file has it.

        Raises:
            MedclipError: MISSING_FILE when there is none, CORRUPT.
        """
        if EXTENSION not in parts:
            raise MedclipError(Reason.MISSING_FILE, "the sample has no ECG.")
        facts = json.loads(parts["json"]).get(SIGNAL_FACTS) or {}
        return decode_signal(parts[EXTENSION], facts)

    def close(self) -> None:
        """Close the tars."""
        self._files.close()

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _path(self, i: int) -> Place:
        return self.shards[self._rows.place(i)[0]].path

    def _corrupt(self, i: int, error: Exception) -> MedclipError:
        kind = type(error).__name__
        return MedclipError(Reason.CORRUPT, f"sample {self.key(i)} is not readable ({kind}).", where=self._path(i))


def _images(parts: Mapping[str, bytes]) -> list[str]:
    """Return the extensions of a sample's images: one, or those of its views in order.

    Raises:
        MedclipError: MISSING_FILE when there is none.
    """
    single = next((extension for extension in EXTENSIONS if extension in parts), None)
    several = [(name.partition("."), name) for name in parts] if single is None else []
    views = sorted((int(n), name) for (n, _, extension), name in several if n.isdigit() and extension in EXTENSIONS)
    if single is None and not views:
        raise MedclipError(Reason.MISSING_FILE, "the sample has no image.")
    return [single] if single is not None else [name for _, name in views]


def _selected(
    rows: MappedRows, selection: Selection, split: str, folder: Place
) -> tuple[SelectedRows, NDArray[np.float32] | None]:
    """Return the rows that a selection keeps, and their weights.

    Raises:
        MedclipError: WRONG_USE for a selection of other samples; NOTHING_TO_DO for one that keeps none.
    """
    of_split = selection.rows_of_split(split)
    if not len(of_split):
        raise MedclipError(
            Reason.WRONG_USE,
            f"the selection has no pair of the split {split!r}.",
            where=folder,
            hint="Select from this split: medclip pairs select, without --split or with this one.",
        )
    number_M = rows.numbers_of(of_split.table.column("key"))
    num_unknown = int((number_M < 0).sum())
    num_missing = len(rows) - (len(of_split) - num_unknown)
    if num_unknown or num_missing:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the selection is of another pile: of its {count(len(of_split), 'pair')} of the split {split!r} "
            f"{number(num_unknown)} are not in these shards, and {number(num_missing)} of their samples are not in it.",
            where=folder,
            hint="Select from these shards: medclip pairs select.",
        )
    kept = of_split.kept_N
    if not kept.any():
        raise MedclipError(Reason.NOTHING_TO_DO, f"the selection keeps nothing of the split {split!r}.", where=folder)
    order = np.argsort(number_M[kept])
    weight_N = of_split.weight_N[kept][order]
    return SelectedRows(rows, number_M[kept][order]), None if (weight_N == 1).all() else weight_N


def _shards(folder: Place, index: Mapping[str, Any], split: str) -> list[ShardFile]:
    base = shard_folder(folder, index)
    return [
        ShardFile(base / s["name"], s["name"], split, s["samples"], s.get("bytes"), s["sha256"])
        for s in index["shards"]
        if s["split"] == split
    ]


def _identity(folders: Sequence[Place], indexes: Sequence[Mapping[str, Any]], split: str) -> str:
    """Hash what the rows of a split depend on: the indexes, and the tables as they lie on this machine's disks."""
    stamps: list[Any] = []
    for folder in folders:
        with suppress(OSError):  # what is wrong with it is told where it is read
            stamp = (folder / SAMPLES).stat() if isinstance(folder, Path) else None
            stamps.append(stamp and [stamp.st_size, stamp.st_mtime_ns])
    return digest_of([_ROWS_VERSION, split, stamps, list(indexes)])


def _batches(
    folders: Sequence[Place], indexes: Sequence[Mapping[str, Any]], split: str, cache: ShardCache
) -> Iterator[Any]:
    """Yield the rows of a split of all folders, with the numbers of their shards for names.

    Raises:
        MedclipError: TABLE_INVALID for a shard that the index does not name; PATIENT_OVERLAP.
    """
    import pyarrow as pa

    pc = _compute()
    first, patients = 0, _Patients(split)
    for folder, index in zip(folders, indexes, strict=True):
        names = pa.array([s.name for s in _shards(folder, index, split)], pa.string())
        for batch in sample_batches(folder, index, cache=cache):
            if len(folders) > 1:
                patients.add(batch)
            rows = batch.filter(pc.equal(batch.column("split"), split))
            refuse_held_out(folder, split, len(rows) - rows.column(SYNTHETIC).null_count)
            number = pc.index_in(rows.column("shard"), value_set=names)
            if number.null_count:
                unknown = rows.column("shard").filter(pc.is_null(number))[0].as_py()
                raise MedclipError(
                    Reason.TABLE_INVALID,
                    f"samples.parquet names the shard {unknown}, which the index does not.",
                    where=folder,
                )
            yield rows.set_column(rows.schema.get_field_index("shard"), "shard", pc.add(number, first))
        first += len(names)
        patients.refuse_overlap(folder)


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


def _holds(folders: Sequence[Place], indexes: Sequence[Mapping[str, Any]]) -> Stored:
    kinds: list[Stored] = [_stored_in(index) for index in indexes]
    other = next((n for n, kind in enumerate(kinds) if kind != kinds[0]), None)
    if other is not None:
        raise MedclipError(
            Reason.WRONG_USE,
            f"it holds {STORED_WORDS[kinds[other]]} where the first folder holds {STORED_WORDS[kinds[0]]}; one model "
            "takes one of them.",
            where=folders[other],
            hint="Name folders of one kind; `medclip shards build --volumes` stores volumes and loops, --signals ECGs.",
        )
    return kinds[0]


def _stored_in(index: Mapping[str, Any]) -> Stored:
    options = index.get("options") or {}
    kinds: list[Stored] = [kind for kind in STORED_WORDS if options.get(kind)]
    return kinds[0] if kinds else "images"


def _compute() -> Any:
    """Return Arrow's functions, which no type checker sees."""
    import pyarrow.compute

    return pyarrow.compute


class _Patients:
    """Patients of several folders, on either side of a split."""

    def __init__(self, split: str) -> None:
        self._split = split
        self._before: dict[bool, Any] = {}
        self._here: dict[bool, list[Any]] = {True: [], False: []}

    def add(self, batch: Any) -> None:
        """Note the patients of some rows of a folder."""
        pc = _compute()
        inside = pc.fill_null(pc.equal(batch.column("split"), self._split), False)
        for side, mask in ((True, inside), (False, pc.invert(inside))):
            self._here[side].append(pc.drop_null(pc.unique(batch.column("patient").filter(mask))))

    def refuse_overlap(self, folder: Place) -> None:
        """Refuse a patient who is in the split in this folder and in another split in one before, or the reverse."""
        import pyarrow as pa

        pc = _compute()
        here = {side: pc.unique(pa.chunked_array(parts, pa.string())) for side, parts in self._here.items()}
        self._here = {True: [], False: []}
        if self._before:
            sides = [here[side].filter(pc.is_in(here[side], value_set=self._before[not side])) for side in here]
            torn = sorted({patient for side in sides for patient in side.to_pylist()})
            if torn:
                raise MedclipError(
                    Reason.PATIENT_OVERLAP,
                    f"{len(torn)} patients are in the split {self._split!r} here or in a folder before, and in another "
                    f"split in the other one (hashed): {', '.join(torn[:3])}.",
                    where=folder,
                    hint="Build the folders with the same seed and splits, or from one table.",
                )
        joined = {side: pa.chunked_array([here[side], self._before[side]]) for side in here} if self._before else here
        self._before = {side: pc.unique(values) for side, values in joined.items()}


def _merged(indexes: Sequence[Mapping[str, Any]], preprocessing: Mapping[str, str]) -> dict[str, Any]:
    return {"shards": [s for i in indexes for s in i["shards"]], "preprocessing": dict(preprocessing)}
