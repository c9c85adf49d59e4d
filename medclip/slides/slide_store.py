"""A folder of slide features: one row for each slide that was met, and the vectors of those that were embedded.

| file | content |
|---|---|
| slides.parquet | one `SlideRow` for each slide, in the order of names, with what became of it |
| features/KEY.h5 | the vectors of a slide (`slide_features`) |
| run.json | version, model, options and counts; there once all of it is complete |

A step over a store has a row for each slide, also for those that it could do nothing with. The slide that vectors are
of is opened again from the folder where it lies, if it is still the same.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.elements import quiet
from medclip.embeddings.embedded_unit import EmbeddingPack, from_dict
from medclip.errors import MedclipError, Reason
from medclip.exit_codes import ExitCode, after
from medclip.files.discover import LEDGER
from medclip.files.output import digest_of
from medclip.files.tables.write import write_rows
from medclip.imaging.slides.readers.open import open_slide
from medclip.models.packs.manifest import file_sha256
from medclip.result import Result
from medclip.settings import Settings
from medclip.slides.slide_features import SlideFeatures, read_feature_blocks, read_slide_features

if TYPE_CHECKING:
    from medclip.imaging.slides.readers.pyramid import SlideReader

SLIDES, FEATURES, RUN = "slides.parquet", "features", "run.json"
DONE = "done"
"""Status of a slide that the stage made something of; the others are skipped or failed, with a reason."""


@dataclass(frozen=True)
class SlideRow:
    """One slide: what it is, how it ended, and what was found on it. What a stage does not know is None."""

    key: str
    """Keyed hash of its file's name: names its files in the folder."""
    file: str
    """Relative to the folder that was named; of several files the first. A keyed hash with --hash-paths."""
    num_files: int
    status: str
    """done, skipped or failed."""
    reason: str | None = None
    """Of the house's closed list: no_tissue, no_scale, corrupt ..."""
    message: str | None = None
    patient: str | None = None
    """Keyed hash."""
    study: str | None = None
    """Keyed hash."""
    sha256: str | None = None
    """Of the file's bytes; of several files the hash of their hashes."""
    mpp_um: float | None = None
    """µm of a pixel of the finest resolution (mean of rows and columns)."""
    mpp_source: str | None = None
    """Who says so: file, table or option."""
    height_um: float | None = None
    width_um: float | None = None
    tissue_share: float | None = None
    """Of the slide's area, 0-1."""
    tissue_mm2: float | None = None
    pen_share: float | None = None
    num_places: int | None = None
    """Patches of the whole grid, with and without tissue."""
    num_patches: int | None = None
    """Patches on tissue; those that are embedded are `num_patches - num_lost`."""
    num_lost: int | None = None
    """Patches whose stored pixels are damaged."""
    num_blurred: int | None = None
    num_artefacts: int | None = None
    decoder: str | None = None
    notes: str | None = None
    """JSON list of what is to be known of the slide."""


@dataclass(frozen=True, eq=False, repr=False)
class SlideStore(Result):
    """A folder that `medclip slides embed` wrote. Iterate over it for the vectors of one slide after another."""

    folder: Path
    rows: tuple[SlideRow, ...]
    pack: EmbeddingPack
    run: Mapping[str, Any]
    """What run.json says."""

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[SlideFeatures]:
        for key in self.keys:
            yield self.read(key)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Keys of the slides that have vectors, in the order of the rows."""
        return tuple(row.key for row in self.rows if row.status == DONE)

    @property
    def counts(self) -> dict[str, int]:
        """Slides by status."""
        names = [row.status for row in self.rows]
        return {name: names.count(name) for name in (DONE, "skipped", "failed")}

    @property
    def digest(self) -> str:
        """Hash of what says which slides, options and model the vectors are of."""
        return digest_of([file_sha256(self.folder / name) for name in (RUN, SLIDES)])

    def check_pack(self, digest: str, *, image_tower: str = "", preprocessing: str = "") -> None:
        """Refuse a pack whose vectors these are not; arguments are those of `EmbeddingPack.answers_for`.

        Raises:
            MedclipError: WRONG_USE.
        """
        if not self.pack.answers_for(digest, image_tower=image_tower, preprocessing=preprocessing):
            raise MedclipError(
                Reason.WRONG_USE,
                f"these slides were embedded with another pack: {self.pack.name} {self.pack.version}.",
                where=self.folder,
                hint="Name that pack with --model, or embed the slides anew with this one.",
            )

    def blocks(self, key: str, rows: int = 8192) -> Iterator[NDArray[np.floating[Any]]]:
        """Yield the vectors of a slide, some at a time: memory is bounded however many there are.

        Yields:
            float32 or float16 [n, D], in the order of `read`.
        """
        self.read(key, vectors=False)
        yield from read_feature_blocks(features_path(self.folder, key), rows)

    def read(self, key: str, *, vectors: bool = True) -> SlideFeatures:
        """Read the vectors of a slide.

        Args:
            key: Key of the slide.
            vectors: Whether vectors are read; False reads all else, places above all.

        Raises:
            MedclipError: WRONG_USE for a slide that has none; CHANGED for vectors of another pack than the store's.
        """
        if key not in self.keys:
            raise MedclipError(Reason.WRONG_USE, f"this store has no vectors of a slide {key!r}.", where=self.folder)
        path = features_path(self.folder, key)
        features = read_slide_features(path, vectors=vectors)
        if features.key != key or features.pack != self.pack:
            raise MedclipError(
                Reason.CHANGED,
                "this file holds the vectors of another slide or model.",
                where=path,
                hint="Remove it and run the same medclip slides embed again.",
            )
        return features

    def _facts(self) -> dict[str, object]:
        return {
            "slides": ", ".join(f"{number:,} {name}" for name, number in self.counts.items()),
            "patches": f"{sum((row.num_patches or 0) - (row.num_lost or 0) for row in self.rows):,}",
            "model": f"{self.pack.name} {self.pack.version}",
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return as_dicts(self.rows, most)


def is_slide_store(path: Path | str) -> bool:
    """Whether a path is a folder of slide features, complete or not; looks for names, and imports nothing heavy."""
    named, run, ledger = (os.path.isfile(os.path.join(path, name)) for name in (SLIDES, RUN, LEDGER))
    return (named and (run or ledger)) or (ledger and os.path.isdir(os.path.join(path, FEATURES)))


def open_slide_store(folder: Path | str | SlideStore) -> SlideStore:
    """Open a folder of slide features.

    Args:
        folder: Folder that was given to `medclip slides embed` as `--out`; what is open already is returned as it is.

    Raises:
        MedclipError: MISSING_FILE for a folder that is none, or is half written; CORRUPT for tables that cannot be
            read.
    """
    if isinstance(folder, SlideStore):
        return folder
    folder = Path(folder)
    if not (folder / RUN).is_file() or not (folder / SLIDES).is_file():
        raise MedclipError(
            Reason.MISSING_FILE,
            "there are no slide features here, or the run that writes them was stopped.",
            where=folder,
            hint="Run medclip slides embed; a run that was stopped goes on when it is called again.",
        )
    try:
        run = json.loads((folder / RUN).read_text(encoding="utf-8"))
        return SlideStore(folder, read_slide_rows(folder / SLIDES), from_dict(run["pack"]), run)
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as e:
        raise MedclipError(
            Reason.CORRUPT,
            "the tables of this folder of slide features cannot be read.",
            where=folder,
            hint="Run the same medclip slides embed again; it writes them anew.",
        ) from e


class HasStatus(Protocol):
    """A row that says how something ended."""

    @property
    def status(self) -> str:
        """Whether it is done, was skipped or failed."""
        ...


def count_statuses(rows: Iterable[HasStatus]) -> dict[str, int]:
    """Count rows by status, in the order in which these come."""
    return dict(Counter(row.status for row in rows))


def as_dicts(rows: Sequence[SlideRow], most: int | None = None) -> list[dict[str, Any]]:
    """Return rows as plain data, at most so many."""
    return [asdict(row) for row in rows[:most]]


def features_path(folder: Path, key: str) -> Path:
    """Return the file of a slide's vectors."""
    return folder / FEATURES / f"{key}.h5"


def write_slide_rows(path: Path, rows: Iterable[SlideRow]) -> None:
    """Write the table of slides."""
    write_rows(path, SlideRow, rows)


def read_slide_rows(path: Path) -> tuple[SlideRow, ...]:
    """Read the table of slides.

    Raises:
        OSError, ValueError: Where it is not there, or is none.
    """
    import pyarrow.parquet as pq

    names = [f.name for f in fields(SlideRow)]
    return tuple(SlideRow(**row) for row in pq.read_table(path, columns=names).to_pylist())


@dataclass(frozen=True)
class StepRow:
    """One slide of a store and how a step ended for it; what the step made of it is in the fields of its own."""

    key: str
    file: str
    """As in slides.parquet."""
    status: str
    """done, skipped or failed: of the slide, or of this step."""
    reason: str | None = None
    message: str | None = None
    patient: str | None = None
    num_patches: int | None = None

    @classmethod
    def of(cls, row: SlideRow) -> Self:
        """Return the row of a slide that nothing was done with yet."""
        return cls(row.key, row.file, row.status, row.reason, row.message, row.patient, row.num_patches)

    def after(self, error: MedclipError) -> Self:
        """Return the row of a slide that the step failed on."""
        return replace(self, status="failed", reason=str(error.reason), message=error.problem().message)


Row = TypeVar("Row", bound=StepRow)


@dataclass(frozen=True, eq=False, repr=False)
class StepResult(Result, Generic[Row]):
    """The rows of all slides of a store."""

    slides: tuple[Row, ...]

    def __len__(self) -> int:
        return len(self.slides)

    @property
    def counts(self) -> dict[str, int]:
        """Slides by status."""
        return count_statuses(self.slides)

    @property
    def exit_code(self) -> ExitCode:
        """0 where no slide failed, 3 where one did."""
        return after(self.counts)


_ALIKE = 0.01
"""How much, of a side, a slide may differ from the one that was embedded."""
_SIDE_PX, _QUALITY = 256, 85


def embedded_paths(images: Path, row: SlideRow) -> list[Path]:
    """Return the files of a slide of a store: of a DICOM slide those of its folder that are of the same series.

    Raises:
        OSError: Where its folder is gone.
    """
    path = images if images.is_file() else images / row.file
    if row.num_files == 1:
        return [path]
    beside = sorted(p for p in path.parent.iterdir() if p.suffix == path.suffix)
    series = _series(path)
    return [p for p in beside if _series(p) == series] if series else beside


def _series(path: Path) -> str:
    """Return the series of a DICOM file; blank for any other."""
    import pydicom

    try:
        with quiet("pydicom"):
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
            return str(header.get("SeriesInstanceUID") or "")
    except Exception:  # pydicom raises many types, whose texts may quote header values
        return ""


def open_embedded(images: Path, row: SlideRow, slide_size_um: tuple[float, float], settings: Settings) -> SlideReader:
    """Open the slide of a row again.

    Args:
        images: The folder that was embedded.
        row: The slide; a scale that came from a table or an option is taken again.
        slide_size_um: Height and width that the slide had, in µm.
        settings: Limits.

    Raises:
        MedclipError: MISSING_FILE where it is not there, CHANGED where it has another size.
    """
    policy = settings.policy
    if row.mpp_source in ("table", "option") and row.mpp_um is not None:
        policy = replace(policy, mpp_um=row.mpp_um)
    try:
        paths = embedded_paths(images, row)
    except OSError as e:
        raise MedclipError(Reason.MISSING_FILE, "there is no such slide in the folder of slides.", where=images) from e
    reader = open_slide(paths, replace(settings, policy=policy))
    sides = zip(reader.size_um, slide_size_um, strict=True)
    if any(abs(side - embedded) > _ALIKE * embedded for side, embedded in sides):
        reader.close()
        raise MedclipError(Reason.CHANGED, "the slide here has another size than the one that was embedded.")
    return reader


def patch_jpeg(
    images: Path, row: SlideRow, features: SlideFeatures, corner_um: tuple[float, float], settings: Settings
) -> bytes:
    """Return a patch as a small JPEG; b"" where its slide is not there, is another one, or cannot be read."""
    from PIL import Image

    try:
        with open_embedded(images, row, features.slide_size_um, settings) as reader:
            pixels = reader.read(*corner_um, features.size_px, features.size_px, features.mpp_um)
    except (MedclipError, OSError):
        return b""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((_SIDE_PX, _SIDE_PX))
    image.save(buffer, format="JPEG", quality=_QUALITY)
    return buffer.getvalue()
