"""The values that travel through every room: files become studies, studies become samples with views.

All are frozen. Arrays inside are not copied; treat them as read-only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from medclip.modalities import MODALITIES, ModalityFacts

if TYPE_CHECKING:
    import os
    from datetime import date

    import numpy as np
    from numpy.typing import NDArray

    from medclip.errors import Problem
    from medclip.settings import EcgOptions


class Modality(StrEnum):
    """The rows of `MODALITIES`, by name. Whether one can be read is for the adapters to say.

    Those that code names stand here; `Modality(name)` makes a member of any other row, and of "unknown", which is none.
    `every_modality` lists all rows.
    """

    XRAY = "xray"
    MAMMOGRAPHY = "mammography"
    CT = "ct"
    MRI = "mri"
    ULTRASOUND = "ultrasound"
    PATHOLOGY = "pathology"
    FUNDUS = "fundus"
    DERMATOLOGY = "dermatology"
    ENDOSCOPY = "endoscopy"
    OCT = "oct"
    ECG = "ecg"

    @property
    def facts(self) -> ModalityFacts:
        """What is said of it."""
        return MODALITIES[self.value]

    @classmethod
    def _missing_(cls, value: object) -> Modality | None:
        if not isinstance(value, str) or (value != "unknown" and value not in MODALITIES):
            return None
        member = str.__new__(cls, value)
        member._name_, member._value_ = value.upper(), value
        return cls._value2member_map_.setdefault(value, member)  # pyright: ignore[reportReturnType]


UNKNOWN = Modality("unknown")
"""Of images whose modality nobody knows: their vectors are computed, and nothing is asked of them."""


def every_modality() -> tuple[Modality, ...]:
    """List the modalities of all rows, also those of other packages."""
    return tuple(map(Modality, MODALITIES))


def spoken(modality: str) -> str:
    """Return a modality's name as it stands in a sentence: X-ray, CT, mammography; other words stay as they are."""
    facts = MODALITIES.get(str(modality))
    return str(modality) if facts is None else facts.title


def modality_of_code(code: str) -> Modality | None:
    """Return the modality that a DICOM code says; None where it says none."""
    return next((Modality(name) for name, facts in MODALITIES.items() if code in facts.dicom_codes), None)


def modality_of_name(text: str) -> Modality | None:
    """Return the modality that a cell names; case, blanks, dashes and underscores do not count.

    Returns:
        The modality; None where nobody calls one so.

    Example:
        >>> [str(modality_of_name(name)) for name in ("X-Ray", "ct_scan", "MR")]
        ['xray', 'ct', 'mri']
        >>> modality_of_name("PET") is None
        True
    """
    return _by_letters(tuple(MODALITIES)).get(_letters(text))


def _letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


@cache
def _by_letters(names: tuple[str, ...]) -> Mapping[str, Modality]:
    rows = {name: MODALITIES[name] for name in names}
    return {
        _letters(spelling): Modality(name)
        for name, facts in rows.items()
        for spelling in (name, facts.title, *facts.spellings, *facts.dicom_codes)
    }


class Kind(StrEnum):
    """What the files of one sample are together. It decides how they are read, and which tasks can be asked of them."""

    IMAGE = "image"
    """One still image."""
    VOLUME = "volume"
    """Slices in space: a CT or MR series, an enhanced multi-frame object, a NIfTI file."""
    CINE = "cine"
    """Frames in time: (frame, row, column, channel)."""
    SIGNAL = "signal"
    """Leads in time: an ECG."""
    SLIDE = "slide"
    """A whole-slide image, read in patches and never as a whole."""


class ModalitySource(StrEnum):
    """Who said what modality a file has."""

    HEADER = "header"
    TABLE = "table"
    OPTION = "option"
    INFERRED = "inferred"
    PACK = "pack"
    """The model knows one modality only, and is asked about files that name none."""


class Stamp(NamedTuple):
    """By what a file is known again without reading it."""

    size_bytes: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Pick it from what `stat` returned."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


NO_STAMP = Stamp(0, 0, 0)


@dataclass(frozen=True)
class FileRef:
    """One path found on disk, readable or not."""

    path: Path
    name: str
    """Path relative to the folder that was named, with forward slashes; the order of files is the byte order of it."""
    size_bytes: int = 0
    problem: Problem | None = None
    """Set when the path cannot be opened at all (loop, no permission, not a file)."""
    stamp: Stamp = NO_STAMP
    """What the file system said of it when it was listed."""
    place: tuple[Any, ...] = field(default=(), compare=False, repr=False)
    """Where the walk met it: places grow along the walk, so that they tell what was listed already."""


@dataclass(frozen=True)
class Step:
    """One operation that was applied to the pixels."""

    name: str
    detail: str = ""


@dataclass(frozen=True)
class Provenance:
    """Where pixels came from and everything that was done to them."""

    sha256: str
    """Hash of the file's bytes."""
    format: str
    """Name of the format as sniffed from the bytes."""
    adapter: str
    preprocessing: str
    """Hash of the adapter's name, version and parameters: equal hash, equal pixels."""
    steps: tuple[Step, ...] = ()
    decoder: str = ""


class ViewKind(StrEnum):
    """How a mammogram was made, beside where the tube stood: kinds are views of their own, never repeats."""

    STANDARD = "standard"
    LOW_ENERGY = "low_energy"
    """Of a contrast-enhanced pair: looks like a standard mammogram."""
    SUBTRACTED = "subtracted"
    """Of a contrast-enhanced pair: shows what took up the contrast agent."""
    SYNTHETIC = "synthetic"
    """Computed from a tomosynthesis."""


SIDES = ("R", "L")
POSITIONS = ("CC", "MLO")
"""Of a screening mammography; ML is not MLO."""
VIEW_KINDS = tuple(str(kind) for kind in ViewKind)


@dataclass(frozen=True)
class ViewType:
    """Which view of a mammography examination an image is."""

    side: str = ""
    """"R" or "L" of the woman; "" where that is not known."""
    position: str = ""
    """"CC", "MLO", another such as "ML", or "" where that is not known."""
    kind: str = "standard"
    """One of `VIEW_KINDS`."""

    @property
    def slot(self) -> str | None:
        """Its place among the views of an examination, such as "R-CC" or "L-MLO subtracted"; None for other views."""
        if self.side not in SIDES or self.position not in POSITIONS:
            return None
        place = f"{self.side}-{self.position}"
        return place if self.kind == ViewKind.STANDARD else f"{place} {self.kind}"

    @property
    def hanging(self) -> tuple[int, int, int]:
        """What views of an examination are sorted by: R-CC, L-CC, R-MLO, L-MLO of one kind, then the next kind.

        Views that are none of these come behind them.

        Example:
            >>> sorted([ViewType("L", "MLO"), ViewType("L", "CC"), ViewType("R", "CC")], key=lambda v: v.hanging)[0]
            ViewType(side='R', position='CC', kind='standard')
        """
        return tuple(
            names.index(name) if name in names else len(names)
            for name, names in ((self.kind, VIEW_KINDS), (self.position, POSITIONS), (self.side, SIDES))
        )  # pyright: ignore[reportReturnType]


@dataclass(frozen=True, eq=False)
class View:
    """One image of a study, ready for any model of its modality."""

    pixels: NDArray[np.uint8] | NDArray[np.float32]
    """H x W x C with C = 1 (grey) or 3 (RGB)."""
    value_range: tuple[float, float]
    """Values that stand for black and white in `pixels`, e.g. (0, 255) for uint8, (0, 1) for float32."""
    unit: str = "relative"
    laterality: str | None = None
    """"L", "R" or None when unknown."""
    position: str | None = None
    """View as the field names it: AP, PA, LATERAL, CC, MLO; None when unknown."""
    exam_kind: str | None = None
    """Of a mammogram one of `VIEW_KINDS`; None for a standard one and for other images."""
    spacing_mm: tuple[float, float] | None = None
    """Row and column spacing in millimetres of `pixels`."""
    burned_in: bool | None = None
    """Whether the header says that text is burned into the pixels; None when it says nothing."""
    in_colour: bool = False
    """Whether the file shows colours, where these pixels are but its luma; False where nobody looked."""
    part: tuple[int, int, int, int] | None = None
    """Top, left, bottom and right of what it shows of the image as decoded, in pixels; beyond the image where it is
    padded. None: all of it."""
    part_of: tuple[int, int] | None = None
    """Rows and columns of the image as decoded; None where nobody wrote it down."""
    flipped: tuple[int, ...] = ()
    """Axes along which that part was mirrored: 0 for rows, 1 for columns."""
    stored_size: tuple[int, int] | None = None
    """Rows and columns of the file, where the image as decoded has others because its pixels were made square."""

    @property
    def view_type(self) -> ViewType:
        """Which view of a mammography examination it is."""
        return ViewType(self.laterality or "", self.position or "", self.exam_kind or str(ViewKind.STANDARD))

    def __repr__(self) -> str:
        """Return size and place in one line, without a pixel."""
        place = "".join(f", {word}" for word in (self.laterality, self.position) if word)
        return f"View({' x '.join(map(str, self.pixels.shape))} {self.pixels.dtype}, {self.unit}{place})"


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels on a regular grid in the patient's space."""

    voxels: NDArray[Any]
    """[slice, row, column] or, with a time or echo axis, [frame, slice, row, column]; float32 or the integer type that
    holds the values exactly. Rows, columns and slices run as they are shown: axial slices from the feet up, front on
    top, the patient's right on the left of the image."""
    affine: NDArray[np.float64]
    """4 x 4: maps (slice, row, column, 1) to millimetres in RAS+ (NIfTI's world: right, anterior, superior)."""
    unit: str
    """"HU" for CT, "relative" where intensities have no unit (MR), else what the header names."""
    plane: str
    """Plane of the slices: axial, coronal, sagittal or oblique."""

    def __repr__(self) -> str:
        """Return size, spacing and unit in one line, without a voxel."""
        size, spacing = " x ".join(map(str, self.voxels.shape)), " x ".join(f"{mm:.3g}" for mm in self.spacing_mm)
        return f"Volume({size} {self.voxels.dtype}, {spacing} mm, {self.unit}, {self.plane})"

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between slices, rows and columns in millimetres."""
        import numpy as np

        slices, rows, columns = (float(value) for value in np.linalg.norm(self.affine[:3, :3], axis=0))
        return slices, rows, columns


@dataclass(frozen=True, eq=False)
class Signal:
    """A 12-lead ECG in millivolts, leads in the order I, II, III, aVR, aVL, aVF, V1 to V6."""

    values_mv: NDArray[np.float32]
    """float32 [12, T] in mV; zeros where a lead is missing. No NaN."""
    mask: NDArray[np.bool_]
    """bool [12]: whether the lead was recorded or could be derived."""
    sampling_hz: float
    stored_leads: tuple[str, ...] = ()
    """Names in the file's order, including channels that are none of the twelve."""
    stored_samples: int = 0
    stored_hz: float = 0.0
    derived: tuple[str, ...] = ()
    """Leads that were computed from others."""
    unit: str = "mV"
    """What `values_mv` is in: mV, or "relative" after a normalisation that was asked for."""
    steps: tuple[Step, ...] = ()
    """Everything that was done to the stored record, and what is worth knowing about it."""
    flags: tuple[str, ...] = ()
    """What is wrong with it or stands out, in words of a closed list (`medclip.imaging.ecg.quality`), some with the
    leads that they are about: "lead_off:V3,V4", "arms_swapped"."""
    heart_rate_bpm: float | None = None
    """Beats a minute by the median distance of QRS complexes; None where fewer than three were found."""
    padded: tuple[int, int] = (0, 0)
    """Samples in front and behind that are no record but zeros, put there to reach the length asked for."""
    prepared: EcgOptions | None = None
    """With what it was filtered, resampled and cut; None: it is as stored."""

    def __repr__(self) -> str:
        """Return leads and length in one line, without a value."""
        leads = f"{int(self.mask.sum())} of {len(self.mask)} leads"
        flags = f", {' '.join(self.flags)}" if self.flags else ""
        return f"Signal({leads}, {self.duration_s:.3g} s, {self.sampling_hz:g} Hz{flags})"

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.values_mv.shape[1] / self.sampling_hz


@dataclass(frozen=True, eq=False)
class Sample:
    """What an adapter makes of one unit: an image, a series, a recording, a slide."""

    modality: Modality | None
    """None only for the generic rendering that is used to infer the modality."""
    views: tuple[View, ...]
    provenance: Provenance
    headers: Mapping[str, Any] = field(default_factory=dict)
    """Allow-listed, non-identifying header values."""
    kind: Kind = Kind.IMAGE
    volume: Volume | None = None
    """Set for volumes; `views` are slices of it."""
    signal: Signal | None = None
    """Set for ECGs, which have no views."""
    frames: NDArray[Any] | None = None
    """Set for cine: [frame, row, column, channel], every frame as decoded; `views` are some of them."""

    def __repr__(self) -> str:
        """Return what it is in a few lines: kind, modality, what it holds and how it was read."""
        holds = [str(part) for part in (self.volume, self.signal) if part is not None]
        if self.frames is not None:
            holds.append(f"{len(self.frames)} frames")
        if self.views:
            holds.append(f"{len(self.views)} x {self.views[0]!r}")
        steps = ", ".join(step.name for step in self.provenance.steps) or "none"
        lines = (
            f"modality: {self.modality or 'unknown'}",
            *holds,
            f"adapter: {self.provenance.adapter}",
            f"steps: {steps}",
        )
        return "\n".join([f"Sample ({self.kind})", *(f"  {line}" for line in lines)])


@dataclass(frozen=True)
class Unit:
    """Files that are read together into one sample: one image, the slices of a series, a record, a slide."""

    kind: Kind
    files: tuple[FileRef, ...]
    """In reading order: slices along the normal, a header before its signals."""
    problem: Problem | None = None
    """Why the unit as a whole is not read, such as a missing slice."""
    notes: tuple[str, ...] = ()
    """What is worth knowing and no reason to refuse it: a gantry tilt, slices left out as duplicates."""
    mpp_um: float | None = None
    """Micrometres per pixel that the user's table states for a slide; for one that does not say itself."""
    stated_view: ViewType | None = None
    """What the user's table states of a mammogram's view; position in the table's words, such as "CC MAG"."""
    exam_date: date | None = field(default=None, repr=False)
    """Day of a mammography examination, for the days between two of them only."""
    copy_of: str = ""
    """Name of the file that counts instead; for a file that holds the same image as another of its study."""


@dataclass(frozen=True)
class Study:
    """Files that belong together: one examination of one patient."""

    key: str
    """Keyed hash of the study UID, or of the table's or folder's name for it: not reversible without the key."""
    patient: str | None
    """Keyed hash of the patient id, None when unknown."""
    files: tuple[FileRef, ...]
    modality: Modality | None
    modality_source: ModalitySource | None
    grouping: str
    """What tied the files together: uid, table, folder or file."""
    file_sources: tuple[ModalitySource | None, ...] = ()
    """Who named the modality of each of `files`, in their order; `modality_source` is that of the first."""
    units: tuple[Unit, ...] = ()
    """How `files` are read; every one of them is in exactly one unit."""
    tie: str = ""
    """Keyed hash of what tied the files together, the same for the studies that one is split into."""
