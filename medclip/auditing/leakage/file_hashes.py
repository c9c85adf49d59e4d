"""Image files as hashes: of their bytes, of what they show, and whether their header says that text is burned in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.leakage.burned_in_text import flag_of
from medclip.auditing.leakage.perceptual_hash import FINE_WORDS, VARIANTS, ImageHashes, hash_images, variants_of
from medclip.errors import MedclipError, Reason
from medclip.files.readers.pool import ReadingPool

if TYPE_CHECKING:
    from medclip.sample import Modality
    from medclip.settings import Settings

_READ_AHEAD = 64


@dataclass(frozen=True, eq=False)
class HashedFiles:
    """N files in their order."""

    sha256: tuple[str, ...]
    """Of the bytes (of a series: of the hashes of its files); "" where it is not known."""
    variants: tuple[ImageHashes, ...] = ()
    """Of the image in each, or the first, of `medclip.auditing.leakage.perceptual_hash.VARIANTS`; where `seen_N` is
    False they say nothing. Empty where no image was read."""
    seen_N: NDArray[np.bool_] | None = None
    burned_in: tuple[bool | None, ...] = ()
    """What the header says of text in the pixels; None where it says nothing. Empty where no header was read."""
    problems: Mapping[str, int] | None = None
    """Why images could not be read, and how many: reasons of `medclip.errors`."""

    @property
    def rows(self) -> NDArray[np.intp]:
        """Rows whose image was hashed."""
        return np.zeros(0, np.intp) if self.seen_N is None else np.flatnonzero(self.seen_N)


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
        modality: Whose adapter reads them; None for the generic rendering.
        settings: Limits and number of reading processes.
        step: Called with the number of files read since the last call.

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
                hashed.append(future.result())
            except MedclipError as error:  # the process died or took too long
                hashed.append(_Hashed(problem=str(error.reason)))
            if step is not None:
                step(1)
    place = {file: i for i, file in enumerate(files)}
    none = _Hashed(problem=str(Reason.MISSING_FILE))
    rows = [none if p is None else hashed[place[Path(p)]] for p in paths]
    problems = dict(Counter(r.problem for r in rows if r.problem))
    burned_in = tuple(r.burned_in for r in rows)
    return collected([r.sha256 for r in rows], [r.words_VW for r in rows], burned_in, problems)


def hash_views(views_VHWC: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Hash the middle one of an image's views, [variants, words]; give it to `embed_images` as `also`.

    Args:
        views_VHWC: uint8 [V, H, W, C].
    """
    return _words(views_VHWC[len(views_VHWC) // 2])


def image_hashes(
    sha256: Sequence[str], images: Iterable[NDArray[np.uint8] | None], *, num_variants: int = len(VARIANTS)
) -> HashedFiles:
    """Hash images that were read elsewhere.

    Args:
        sha256: Of each row's bytes, "" where it is not known.
        images: uint8 [H, W] or [H, W, C] of each row; None where it was not read. Taken one by one.
        num_variants: How many of the variants to hash: one is enough on the side that others are compared with.
    """
    return collected(sha256, [None if p is None else _words(p, num_variants) for p in images])


@dataclass(frozen=True, eq=False)
class _Hashed:
    sha256: str = ""
    words_VW: NDArray[np.uint64] | None = None
    burned_in: bool | None = None
    problem: str = ""


def hash_file(path: Path, modality: Modality | None, settings: Settings) -> _Hashed:
    """Hash one file; runs in a reading process and never imports torch."""
    from medclip.adapters.base import combined_sha256
    from medclip.adapters.model_images import images_of
    from medclip.adapters.registry import read_unit
    from medclip.adapters.sources import source_of
    from medclip.imaging.intensity import to_uint8

    sha256, burned_in = "", None
    try:
        source = source_of(path, settings)
        sha256 = combined_sha256(source)
        burned_in = flag_of(source)
        images = images_of(read_unit(source, modality, settings))
        if not images:
            raise MedclipError(Reason.NO_PIXELS, "the adapter found no image in the file.")
        words_VW = _words(to_uint8(images[len(images) // 2]))
    except MedclipError as error:
        return _Hashed(sha256, burned_in=burned_in, problem=str(error.reason))
    return _Hashed(sha256, words_VW, burned_in)


def _words(image: NDArray[np.uint8], num_variants: int = len(VARIANTS)) -> NDArray[np.uint64]:
    """Return the coarse and then the fine words of each variant, [V, 1 + W]."""
    hashes = hash_images(variants_of(image)[:num_variants])
    return np.column_stack((hashes.coarse_N, hashes.fine_NW))


def collected(
    sha256: Sequence[str],
    words: Sequence[NDArray[np.uint64] | None],
    burned_in: tuple[bool | None, ...] = (),
    problems: Mapping[str, int] | None = None,
) -> HashedFiles:
    """Put together what `hash_views` gave for each row.

    Args:
        sha256: Of each row's bytes, "" where it is not known.
        words: Of each row; None where the image was not read.
        burned_in: What each header says of text in the pixels.
        problems: Why images could not be read.
    """
    shape = next((w.shape for w in words if w is not None), (len(VARIANTS), 1 + FINE_WORDS))
    blank = np.zeros(shape, np.uint64)
    words_NVW = np.array([blank if w is None else w for w in words], np.uint64).reshape(-1, *shape)
    variants = tuple(ImageHashes(words_NVW[:, v, 0], words_NVW[:, v, 1:]) for v in range(shape[0]))
    return HashedFiles(tuple(sha256), variants, np.array([w is not None for w in words], bool), burned_in, problems)
