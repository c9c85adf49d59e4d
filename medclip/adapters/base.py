"""What an adapter is: one modality's way from a file to a Sample."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.files.dicom_header import modality_code
from medclip.files.inspect import FileFacts
from medclip.files.sniff import Format
from medclip.imaging.decoded import Decoded, check_not_constant, check_not_small
from medclip.imaging.dicom_pixels import PERCENTILES, read_dicom
from medclip.imaging.raster import read_raster
from medclip.sample import Modality, Provenance, Sample, Step, View, spoken
from medclip.settings import Settings

IMAGING_VERSION = 1
"""Raise when `medclip.imaging` gives other pixels for the same file: it enters every adapter's hash."""

RASTERS = frozenset({Format.PNG, Format.JPEG, Format.TIFF})
_NAMES = {Format.DICOM: "a DICOM object", Format.PNG: "a PNG", Format.JPEG: "a JPEG", Format.TIFF: "a TIFF"}


@runtime_checkable
class Adapter(Protocol):
    """One modality's way from a file to a Sample. A plug-in may be any class with these members."""

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
    def parameters(self) -> Mapping[str, Any]:
        """Constants that shape the pixels; JSON values."""
        ...

    @property
    def preprocessing(self) -> str:
        """Hash of name, version and parameters: equal hash, equal pixels."""
        ...

    def accepts(self, facts: FileFacts) -> bool:
        """Say whether it reads a file of this format and header."""
        ...

    def read(self, path: Path, facts: FileFacts, settings: Settings) -> Sample:
        """Read one file."""
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
    """Whether colour pictures become luma."""
    dicom_codes: frozenset[str] = frozenset()
    """DICOM modality codes it reads; "" stands for files that do not say."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Constants that shape the pixels."""
        dicom = {"dicom_percentiles": list(PERCENTILES)} if self.dicom_codes else {}
        return {"grey": self.grey, "imaging": IMAGING_VERSION, **dicom}

    @property
    def preprocessing(self) -> str:
        """Hash of name, version and parameters."""
        return preprocessing_hash(self.name, self.version, self.parameters)

    def accepts(self, facts: FileFacts) -> bool:
        """Say whether it reads a file of this format and header."""
        if facts.format is Format.DICOM:
            return facts.header is not None and modality_code(facts.header) in self.dicom_codes
        return facts.format in RASTERS

    def read(self, path: Path, facts: FileFacts, settings: Settings) -> Sample:
        """Read one file.

        Args:
            path: The file.
            facts: What `inspect_file` said of it.
            settings: Limits.

        Returns:
            A sample with one view: uint8 (0-255) for files of up to 8 bits, else float32 (0-1).

        Raises:
            MedclipError: With the reason why it cannot be read; `where` is the path.
        """
        try:
            return self._read(path, facts, settings)
        except MedclipError as error:
            if error.where is not None:
                raise
            raise MedclipError(error.reason, error.message, where=path, hint=error.hint) from None

    def _read(self, path: Path, facts: FileFacts, settings: Settings) -> Sample:
        if not self.accepts(facts):
            readable = "DICOM, PNG, JPEG or TIFF" if self.dicom_codes else "PNG, JPEG or TIFF"
            what = f"{spoken(self.modality)} images" if self.modality else "such images"
            raise MedclipError(
                Reason.NOT_SUPPORTED_YET,
                f"The file is {_NAMES.get(facts.format, facts.format)}; this version reads {what} from {readable}.",
            )
        if facts.format is Format.DICOM:
            decoded = read_dicom(path, settings, header=facts.header)
        else:
            decoded = read_raster(path, facts.format, settings, grey=self.grey)
        check_not_small(decoded.pixels)
        check_not_constant(decoded.pixels)
        if self.grey and decoded.pixels.shape[2] == 3:
            decoded = decoded._replace(pixels=luma(decoded.pixels), steps=(*decoded.steps, Step("luma", "RGB to grey")))
        view, steps = self.render(decoded, facts)
        provenance = Provenance(
            sha256=facts.sha256,
            format=str(facts.format),
            adapter=self.name,
            preprocessing=self.preprocessing,
            steps=(*decoded.steps, *steps),
            decoder=decoded.decoder,
        )
        return Sample(self.modality, (view,), provenance, decoded.headers)

    def render(self, decoded: Decoded, facts: FileFacts) -> tuple[View, tuple[Step, ...]]:
        """Make the view of decoded pixels, and say what was done."""
        raise NotImplementedError


def luma(pixels: NDArray[Any]) -> NDArray[Any]:
    """Average H x W x 3 RGB to H x W x 1 luma (ITU-R 601), in the same type."""
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    return (grey + 0.5).astype(np.uint8)[:, :, None] if pixels.dtype == np.uint8 else grey[:, :, None]


def value_range(pixels: NDArray[Any]) -> tuple[float, float]:
    """Give the values of black and white for rendered pixels: (0, 255) for uint8, (0, 1) for float32."""
    return (0.0, 255.0) if pixels.dtype == np.uint8 else (0.0, 1.0)
