"""What an adapter is: one modality's way from a file to a Sample."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.read import modality_code
from medclip.dicom.header.safe_header import public_values
from medclip.dicom.pixels.decoded import Decoded, check_not_constant, check_not_small
from medclip.dicom.pixels.render import PERCENTILES, read_dicom
from medclip.errors import MedclipError, Reason
from medclip.files.discover import discover
from medclip.files.grouping.units import kind_of, units_of
from medclip.files.recognise.inspect import FileFacts, inspect_file
from medclip.files.recognise.sniff import Format
from medclip.files.tables.manifest import file_named
from medclip.imaging.intensity import has_colours, scale_to_uint8
from medclip.imaging.raster import read_raster
from medclip.sample import FileRef, Kind, Modality, Provenance, Sample, Step, View, ViewType, spoken
from medclip.settings import Settings

DICOM_VERSION = 2
"""Raise when the same DICOM file gives other pixels. 2: non-square pixels are made square."""
IMAGING_VERSION = 1
"""Raise when `medclip.imaging` gives other pixels for the same file: it enters every adapter's hash."""

RASTERS = frozenset(
    {
        Format.PNG,
        Format.JPEG,
        Format.TIFF,
        Format.GIF,
        Format.BMP,
        Format.WEBP,
        Format.JPEG2000,
        Format.METAIMAGE_2D,
    }
)
"""Images without a header that says what they show."""
_NAMES = {
    Format.DICOM: "a DICOM object",
    Format.PNG: "a PNG",
    Format.JPEG: "a JPEG",
    Format.TIFF: "a TIFF",
    Format.NIFTI: "a NIfTI volume",
    Format.METAIMAGE: "a MetaImage volume",
    Format.METAIMAGE_2D: "a MetaImage of one slice",
    Format.SLIDE: "a whole-slide image",
    Format.MP4: "an MP4 video",
    Format.AVI: "an AVI video",
    Format.WFDB: "an ECG",
}


@dataclass(frozen=True)
class Source:
    """One unit at the moment it is read: its files, in reading order, with what inspection said of each."""

    kind: Kind
    paths: tuple[Path, ...]
    facts: tuple[FileFacts, ...]
    notes: tuple[str, ...] = ()
    """Of the unit; they become steps of the sample's provenance."""
    mpp_um: float | None = None
    """What a table says a pixel of a slide measures; used where the slide does not."""
    stated_view: ViewType | None = None
    """What a table says of a mammogram's view; it goes before the header."""

    @property
    def path(self) -> Path:
        """The first file: the only one of an image, the header of a record."""
        return self.paths[0]

    @property
    def first(self) -> FileFacts:
        """What inspection said of the first file."""
        return self.facts[0]


def single(path: Path, facts: FileFacts) -> Source:
    """Make the source of one file on its own."""
    return Source(kind_of(facts), (path,), (facts,))


def combined_sha256(source: Source) -> str:
    """Hash a unit's bytes: the file's own hash, or for several files the hash of their hashes in reading order."""
    if len(source.facts) == 1:
        return source.first.sha256
    return hashlib.sha256("".join(facts.sha256 for facts in source.facts).encode()).hexdigest()


@runtime_checkable
class Adapter(Protocol):
    """One modality's way from a unit of files to a Sample. A plug-in may be any class with these members."""

    @property
    def name(self) -> str:
        """Short name, as in the registry."""
        ...

    @property
    def modality(self) -> Modality | None:
        """What it reads; None only for the generic rendering."""
        ...

    @property
    def version(self) -> int:
        """Raised whenever the pixels it gives change."""
        ...

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of unit it reads."""
        ...

    def parameters_of(self, kind: Kind) -> Mapping[str, Any]:
        """Constants that shape what it makes of a kind; JSON values."""
        ...

    def preprocessing_of(self, kind: Kind) -> str:
        """Hash of name, version and parameters for a kind: equal hash, equal pixels."""
        ...

    def accepts(self, source: Source) -> bool:
        """Return whether it reads a unit of this kind, formats and headers."""
        ...

    def describe(self, kind: Kind) -> str:
        """Describe in one line what is read for a kind: shape, type, unit, range."""
        ...

    def read(self, source: Source, settings: Settings) -> Sample:
        """Read one unit."""
        ...


def preprocessing_hash(name: str, version: int, parameters: Mapping[str, Any]) -> str:
    """Hash what decides an adapter's pixels into 16 hex characters."""
    text = json.dumps([name, version, dict(parameters)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class ImageAdapter:
    """Base of the built-in adapters: decode, render, wrap. A subclass sets the constants and `render`."""

    name: str
    modality: Modality | None
    version: int
    grey: bool
    """Whether colour images become luma."""
    dicom_codes: frozenset[str] = frozenset()
    """DICOM modality codes it reads; "" stands for files that do not say."""

    kinds: frozenset[Kind] = frozenset({Kind.IMAGE})

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Constants that shape the pixels of single images."""
        dicom = {"dicom_percentiles": list(PERCENTILES), "dicom_pixels": DICOM_VERSION} if self.dicom_codes else {}
        return {"grey": self.grey, "imaging": IMAGING_VERSION, **dicom}

    @property
    def preprocessing(self) -> str:
        """Hash of name, version and parameters for single images."""
        return self.preprocessing_of(Kind.IMAGE)

    def parameters_of(self, kind: Kind) -> Mapping[str, Any]:
        """Constants that shape what it makes of a kind. A subclass that reads other kinds adds theirs."""
        return self.parameters if kind is Kind.IMAGE else {"kind": str(kind), **self.parameters}

    def preprocessing_of(self, kind: Kind) -> str:
        """Hash of name, version and parameters for a kind."""
        return preprocessing_hash(self.name, self.version, self.parameters_of(kind))

    def accepts(self, source: Source) -> bool:
        """Return whether it reads a unit of this kind, formats and headers."""
        facts = source.first
        if source.kind not in self.kinds:
            return False
        if facts.format is Format.DICOM and len(source.paths) == 1:
            return facts.header is not None and modality_code(facts.header) in self.dicom_codes
        return is_raster(source)

    def describe(self, kind: Kind) -> str:
        """Describe in one line what is read for a kind."""
        channels = "1" if self.grey else "3"
        return f"1 view, H x W x {channels}, uint8 0-255 or float32 0-1"

    def read(self, source: Source, settings: Settings) -> Sample:
        """Read one unit.

        Returns:
            A sample with one view: uint8 (0-255) for files of up to 8 bits, else float32 (0-1).

        Raises:
            MedclipError: With the reason why it cannot be read; `where` is the path.
        """
        try:
            if not self.accepts(source):
                raise refused(self, source)
            return self.read_unit(source, settings)
        except MedclipError as error:
            if error.where is not None:
                raise
            raise error.at(source.path) from None

    def read_unit(self, source: Source, settings: Settings) -> Sample:
        """Read a unit that `accepts` has let through. A subclass that reads other kinds than images overrides it."""
        path, facts = source.path, source.first
        if facts.format is Format.DICOM:
            decoded = read_dicom(path, settings, header=facts.header)
        else:
            decoded = read_raster(path, facts.format, settings, grey=self.grey)
        check_not_small(decoded.pixels)
        check_not_constant(decoded.pixels)
        if self.grey and decoded.pixels.shape[2] == 3:
            steps = (*decoded.steps, Step("luma", "RGB to grey"))
            coloured = has_colours(scale_to_uint8(decoded.pixels, *value_range(decoded.pixels)))
            decoded = decoded._replace(pixels=luma(decoded.pixels), steps=steps, in_colour=coloured)
        view, steps = self.render(decoded, facts, cropped=settings.policy.crop == "modality")
        height, width = decoded.pixels.shape[:2]
        view = replace(view, in_colour=decoded.in_colour, part_of=(height, width))
        view = replace(view, stored_size=decoded.stored_size, spacing_mm=view.spacing_mm or decoded.spacing_mm)
        return Sample(
            self.modality,
            (view,),
            self.provenance(source, (*decoded.steps, *steps), decoded.decoder, settings),
            decoded.headers,
        )

    def provenance(self, source: Source, steps: tuple[Step, ...], decoder: str, settings: Settings) -> Provenance:
        """Write down where a unit's pixels came from and what was done to them."""
        changes = settings.policy.changes()
        preprocessing = self.preprocessing_of(source.kind)
        if changes:
            preprocessing = preprocessing_hash(preprocessing, self.version, changes)
        return Provenance(
            sha256=combined_sha256(source),
            format=str(source.first.format),
            adapter=self.name,
            preprocessing=preprocessing,
            steps=(*(Step("note", note) for note in source.notes), *steps),
            decoder=decoder,
        )

    def render(self, decoded: Decoded, facts: FileFacts, *, cropped: bool) -> tuple[View, tuple[Step, ...]]:
        """Make the view of decoded pixels, and say what was done.

        Args:
            decoded: The file's pixels.
            facts: Facts of the file.
            cropped: Whether the image is cut to what its modality shows.
        """
        raise NotImplementedError


def is_raster(source: Source) -> bool:
    """Return whether a unit is one image without a medical header; a MetaImage may have its voxels beside it."""
    form = source.first.format
    return form in RASTERS and (len(source.paths) == 1 or form is Format.METAIMAGE_2D)


def refused(adapter: Adapter, source: Source) -> MedclipError:
    """Return the error for a unit that an adapter does not read."""
    facts = source.first
    if adapter.modality is None and source.kind is Kind.VOLUME and facts.format is not Format.DICOM:
        return MedclipError(
            Reason.NOT_SUPPORTED_YET,
            f"the file is {_NAMES.get(facts.format, 'a volume')} and does not say whether it is CT or MRI.",
            hint="Name it: --modality ct or --modality mri, in Python modality='ct' or modality='mri'.",
        )
    what = f"the {adapter.name} adapter" if adapter.modality is None else f"{spoken(adapter.modality)} adapter"
    kinds = ", ".join(sorted(adapter.kinds))
    return MedclipError(
        Reason.NOT_SUPPORTED_YET,
        f"the file is {_NAMES.get(facts.format, facts.format)} ({source.kind}); {what} reads {kinds} of other formats.",
    )


def stated(facts: FileFacts) -> dict[str, Any]:
    """Return what a file's header states and may leave; nothing for files without a medical header."""
    return {} if facts.header is None else dict(public_values(facts.header))


def luma(pixels: NDArray[Any]) -> NDArray[Any]:
    """Average H x W x 3 RGB to H x W x 1 luma (ITU-R 601), in the same type."""
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    return (grey + 0.5).astype(np.uint8)[:, :, None] if pixels.dtype == np.uint8 else grey[:, :, None]


def value_range(pixels: NDArray[Any]) -> tuple[float, float]:
    """Return the values of black and white for rendered pixels: (0, 255) for uint8, (0, 1) for float32."""
    return (0.0, 255.0) if pixels.dtype == np.uint8 else (0.0, 1.0)


# From a path that a table names to the unit that is read: a file, or the folder of one series, slide or record.


def source_of(path: Path, settings: Settings) -> Source:
    """Look at what a path names.

    Args:
        path: A file; or a folder with the files of one series, slide or record and nothing else that could be read. A
            WFDB record may be named without the suffix of its header, as tables of PhysioNet do.
        settings: Limits and policy.

    Returns:
        The unit. Facts of a single file may carry a problem, which reading then raises.

    Raises:
        MedclipError: MISSING_FILE; the problem of the series in a folder; WRONG_USE for a folder of several things.
    """
    if not path.is_dir():
        path = file_named(path)
        return single(path, inspect_file(path, settings))
    refs = discover(path, follow_links=settings.follow_links)
    return source_of_files(path, [ref for ref in refs if ref.problem is None], settings)


def source_of_files(where: Path, refs: Sequence[FileRef], settings: Settings) -> Source:
    """Look at files that make one unit: one image, or a series, slide or record.

    Args:
        where: Path that errors name.
        refs: The files; their names tell them apart.
        settings: Limits and policy.
    """
    pairs = [(ref, inspect_file(ref.path, settings)) for ref in refs]
    if len(pairs) == 1 and not where.is_dir():
        return single(pairs[0][0].path, pairs[0][1])
    usable = [(ref, facts) for ref, facts in pairs if facts.problem is None]
    units = units_of(usable, uneven=settings.policy.uneven_slices)
    units = tuple(u for u in units if u.problem is None or u.problem.reason is not Reason.COMPANION) or units[:1]
    if len(units) != 1:
        raise MedclipError(
            Reason.WRONG_USE,
            f"this folder holds {len(units)} things to read; a folder in a table is one series, slide or record.",
            where=where,
            hint="Name the files, or one folder for each series.",
        )
    (unit,) = units
    if unit.problem is not None:
        raise unit.problem.error(where)
    facts_of = {ref.name: facts for ref, facts in usable}
    return Source(unit.kind, tuple(r.path for r in unit.files), tuple(facts_of[r.name] for r in unit.files), unit.notes)
