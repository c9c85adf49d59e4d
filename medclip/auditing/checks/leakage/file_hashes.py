"""Image files as hashes: of their bytes, of what they show, and whether their header says that text is burned in.

A name in the image tells whose it is, and a marker ("portable", a hospital's logo, the side in a fixed font) tells a
model where it was taken. DICOM's BurnedInAnnotation (0028,0301) says whether there is any; it is often absent, and no
header can prove that an image is clean. medclip has no detector of letters, so images without a header are counted
as not tested.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.files.readers.pool import ReadingPool
from medclip.imaging.perceptual_hash import FINE_WORDS, SMALL_PX, VARIANTS, ImageHashes, Look, look_of
from medclip.imaging.registration import MOST_IMAGES

if TYPE_CHECKING:
    from medclip.adapters.base import Source
    from medclip.sample import Modality
    from medclip.settings import Settings


def flags_of_headers(headers: Sequence[str | None]) -> tuple[bool | None, ...]:
    """Read the flags from the column `headers` of a files.parquet.

    Returns:
        True or False where the header says so; None where it says nothing.
    """
    flags = (json.loads(h).get("burned_in") if h else None for h in headers)
    return tuple(flag if isinstance(flag, bool) else None for flag in flags)


def flags_of_files(paths: Sequence[str | Path | None], settings: Settings) -> tuple[bool | None, ...]:
    """Read the flags from the files' own headers, without their pixels.

    Args:
        paths: File of each row, or the folder of one series; None where a row has none.
        settings: Limits and number of reading processes.

    Returns:
        True or False where the header says so; None where it says nothing or cannot be read.
    """
    files = list(dict.fromkeys(Path(p) for p in paths if p is not None))
    flags: dict[Path, bool | None] = {}
    with ReadingPool.of(settings) as pool:
        futures = pool.map(flag_of_file, ((path, settings) for path in files), ahead=_READ_AHEAD)
        for path, future in zip(files, futures, strict=True):
            try:
                flags[path] = future.result()
            except MedclipError:
                flags[path] = None
    return tuple(None if p is None else flags[Path(p)] for p in paths)


def flag_of_file(path: Path, settings: Settings) -> bool | None:
    """Read the flag of one unit; runs in a reading process."""
    from medclip.adapters.base import source_of

    return flag_of(source_of(path, settings))


def flag_of(source: Source) -> bool | None:
    """Return what the headers of one unit's files state: True where any does, False where all state there is none."""
    flags = [facts.header.burned_in for facts in source.facts if facts.header is not None]
    if True in flags:
        return True
    return False if flags and None not in flags else None


def burned_in_row(flags: Sequence[bool | None], num_rows: int) -> dict[str, Any]:
    """Make the row of the table of leakage."""
    num_stated = sum(flag is not None for flag in flags)
    num_burned_in = sum(flag is True for flag in flags)
    if not flags:
        sentence = "Not tested for text in the pixels: the headers of the images were not read."
    elif not num_stated:
        sentence = (
            f"Not tested for text in the pixels: no header of the {num_rows} images says whether there is any, and "
            "letters in pixels are not looked for."
        )
    else:
        sentence = (
            f"{num_burned_in} of the {num_stated} images whose header says anything of it have text burned into the "
            "pixels: it may name the patient, and a model may read the hospital from it. "
            if num_burned_in
            else f"None of the {num_stated} headers that say anything of it report text in the pixels. "
        ) + f"{num_rows - num_stated} of {num_rows} images are without such a header and were not tested."
    return {
        "check": "text burned into the pixels",
        "found": num_burned_in,
        "tested": num_stated,
        "severity": "note",
        "sentence": sentence,
    }


_READ_AHEAD = 64


@dataclass(frozen=True, eq=False)
class HashedFiles:
    """N files in their order."""

    sha256: tuple[str, ...]
    """Of the bytes (of a series: of the hashes of its files); "" where it is not known."""
    variants: tuple[ImageHashes, ...] = ()
    """Of the image in each, or the first, of `medclip.imaging.perceptual_hash.VARIANTS`; where `seen_N` is
    False they say nothing. Empty where no image was read."""
    seen_N: NDArray[np.bool_] | None = None
    small_NHW: NDArray[np.uint8] | None = None
    """Small images that cropped and rotated copies are found with, of the first `registration.MOST_IMAGES` rows; None
    where there are hashes only."""
    burned_in: tuple[bool | None, ...] = ()
    """What the header says of text in the pixels; None where it says nothing. Empty where no header was read."""
    problems: Mapping[str, int] | None = None
    """Why images could not be read, and how many: reasons of `medclip.errors`."""

    @property
    def rows(self) -> NDArray[np.intp]:
        """Rows whose image was hashed."""
        return np.zeros(0, np.intp) if self.seen_N is None else np.flatnonzero(self.seen_N)

    @property
    def small_rows(self) -> NDArray[np.intp]:
        """Rows that have a small image, too."""
        return self.rows[:0] if self.small_NHW is None else self.rows[self.rows < len(self.small_NHW)]


def hash_files(
    paths: Sequence[str | Path | None],
    modality: Modality | None,
    settings: Settings,
    *,
    step: Callable[[int], None] | None = None,
) -> HashedFiles:
    """Read image files through their modality's adapter, in processes of their own, and keep hashes only.

    Args:
        paths: File of each row, or the folder of one series; None where a row has none.
        modality: Modality whose adapter reads the files; None for the generic rendering.
        settings: Limits and number of reading processes.
        step: Function called with the number of files read since the last call.

    Returns:
        One entry for each path. What cannot be read is counted, and never stops the others; a file that several rows
        name is read once. Of a series or a loop the middle image is hashed.
    """
    files = list(dict.fromkeys(Path(p) for p in paths if p is not None))
    hashed: list[_Hashed] = []
    with ReadingPool.of(settings) as pool:
        jobs = ((path, modality, settings) for path in files)
        for future in pool.map(hash_file, jobs, ahead=_READ_AHEAD):
            try:
                one = future.result()
                if one.look is not None and len(hashed) >= MOST_IMAGES:
                    one = replace(one, look=replace(one.look, small_HW=None))
                hashed.append(one)
            except MedclipError as error:  # the process died or took too long
                hashed.append(_Hashed(problem=str(error.reason)))
            if step is not None:
                step(1)
    place = {file: i for i, file in enumerate(files)}
    none = _Hashed(problem=str(Reason.MISSING_FILE))
    rows = [none if p is None else hashed[place[Path(p)]] for p in paths]
    problems = dict(Counter(r.problem for r in rows if r.problem))
    burned_in = tuple(r.burned_in for r in rows)
    return collected([r.sha256 for r in rows], [r.look for r in rows], burned_in, problems)


def image_hashes(
    sha256: Sequence[str], images: Iterable[NDArray[np.uint8] | None], *, num_variants: int = len(VARIANTS)
) -> HashedFiles:
    """Hash images that were read elsewhere.

    Args:
        sha256: SHA-256 of each row's bytes, "" where it is not known.
        images: Image of each row, uint8 [H, W] or [H, W, C]; None where it was not read. Taken one by one.
        num_variants: Number of variants to hash: one is enough on the side that others are compared with.
    """
    looks = [
        None if image is None else look_of(image, num_variants, small=n < MOST_IMAGES) for n, image in enumerate(images)
    ]
    return collected(sha256, looks)


@dataclass(frozen=True, eq=False)
class _Hashed:
    sha256: str = ""
    look: Look | None = None
    burned_in: bool | None = None
    problem: str = ""


def hash_file(path: Path, modality: Modality | None, settings: Settings) -> _Hashed:
    """Hash one file; runs in a reading process and never imports torch."""
    from medclip.adapters.base import combined_sha256, source_of
    from medclip.adapters.model_images import images_of
    from medclip.adapters.registry import read_unit
    from medclip.imaging.intensity import to_uint8

    sha256, burned_in = "", None
    try:
        source = source_of(path, settings)
        sha256 = combined_sha256(source)
        burned_in = flag_of(source)
        images = images_of(read_unit(source, modality, settings))
        if not images:
            raise MedclipError(Reason.NO_PIXELS, "the adapter found no image in the file.")
        image = to_uint8(images[len(images) // 2])
        look = look_of(image)
    except MedclipError as error:
        return _Hashed(sha256, burned_in=burned_in, problem=str(error.reason))
    return _Hashed(sha256, look, burned_in)


def collected(
    sha256: Sequence[str],
    looks: Sequence[Look | None],
    burned_in: tuple[bool | None, ...] = (),
    problems: Mapping[str, int] | None = None,
) -> HashedFiles:
    """Join what each row looks like.

    Args:
        sha256: SHA-256 of each row's bytes, "" where it is not known.
        looks: Look of each row, from `perceptual_hash.look_of_views`; None where the image was not read.
        burned_in: Flag of each header for text in the pixels; None where it says nothing of it.
        problems: Number of images that could not be read, by reason.
    """
    shape = next((look.words_VW.shape for look in looks if look is not None), (len(VARIANTS), 1 + FINE_WORDS))
    words_NVW = np.zeros((len(looks), *shape), np.uint64)
    small_NHW = np.zeros((min(len(looks), MOST_IMAGES), SMALL_PX, SMALL_PX), np.uint8)
    for n, look in enumerate(looks):
        if look is not None:
            words_NVW[n] = look.words_VW
            if n < len(small_NHW) and look.small_HW is not None:
                small_NHW[n] = look.small_HW
    variants = tuple(ImageHashes(words_NVW[:, v, 0], words_NVW[:, v, 1:]) for v in range(shape[0]))
    seen_N = np.array([look is not None for look in looks], bool)
    return HashedFiles(tuple(sha256), variants, seen_N, small_NHW, burned_in, problems)
