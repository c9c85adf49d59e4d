"""Units read in processes of their own, and encoded while the next are read: one loop for whoever needs features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Problem, Reason
from medclip.files.readers.pool import ReadingPool
from medclip.models.encoding.parallel_encoding import Batches, ImageEncoder, encoder_threads
from medclip.models.inputs.read_pixels import Pixels, read_pixels
from medclip.sample import Modality

if TYPE_CHECKING:
    from medclip.models.inputs.preprocess import Images
    from medclip.models.inputs.read_pixels import Render
    from medclip.settings import Settings

_READ_AHEAD = 64
"""Units asked for and not yet taken: enough that the processes never wait for the model."""
NO_PIXELS = np.empty((0, 0, 0, 3), np.uint8)


class NamedUnit(Protocol):
    """A unit by its place: a file, or the folder of one series, slide or record."""

    @property
    def path(self) -> Path:
        """The file or folder."""
        ...

    @property
    def modality(self) -> Modality | str | None:
        """Whose adapter reads it, or "generic"; None: that of the modality which its files state."""
        ...


@dataclass(frozen=True, eq=False)
class ReadUnit:
    """One unit after reading. Where there is a problem, pixels and features are empty."""

    sha256: str
    """Of the file's bytes, or of the hashes of a series' files; "" where they could not be read."""
    pixels: Images
    """One image for each view, at the model's size; empty where they are not kept."""
    features: NDArray[np.float32]
    """float32 [V, D] of unit norm: the first model's."""
    problem: Problem | None = None
    way: str = ""
    """How it was read: "xray", "ct:volume"."""
    others: tuple[NDArray[np.float32], ...] = ()
    """float32 [V, D] of each further model."""


class UnitReader:
    """Reading processes and a model to encode with. Use as a context manager.

    Args:
        model: The base.
        settings: Limits, policy and number of reading processes.
    """

    at_once = 256
    """Units to ask for at once where what is read of all of them would not fit: 40 MB of views of 224 px."""

    def __init__(self, model: ImageEncoder, settings: Settings) -> None:
        self._model, self._settings = model, settings
        self._pool: ReadingPool | None = None

    def __enter__(self) -> Self:
        settings = self._settings
        self._pool = ReadingPool.of(settings)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.close()

    def read(
        self,
        units: Sequence[NamedUnit],
        step: Callable[[int], None],
        *,
        keep_pixels: bool = True,
        others: Sequence[ImageEncoder] = (),
        render: Render | None = None,
        otherwise: Modality | None = None,
        ahead: int = _READ_AHEAD,
    ) -> list[ReadUnit]:
        """Read and encode units; what cannot be read carries its problem, and never stops the others.

        Args:
            units: The units.
            step: Function called with the number of units that were read since the last call.
            keep_pixels: Whether the pixels are kept once they are encoded.
            others: Further models to encode with, of the same input size.
            render: Maker of what the model is shown, as `read_pixels` takes it.
            otherwise: Modality of units for which neither they nor their files name one.
            ahead: Units asked for and not yet taken.

        Returns:
            One entry for each unit, in their order.
        """
        assert self._pool is not None
        models = (self._model, *others)
        rows: list[list[list[NDArray[np.float32]]]] = [[[] for _ in models] for _ in units]
        pixels_of: list[Pixels] = []
        jobs = ((u.path, u.modality, self._model.preprocess, self._settings, render, otherwise) for u in units)
        with encoder_threads() as (threads, num_threads):
            batches = [
                Batches(m, threads, num_threads, lambda n, f, k=k: rows[n][k].append(f.copy()))
                for k, m in enumerate(models)
            ]
            for number, future in enumerate(self._pool.map(read_pixels, jobs, ahead=ahead)):
                try:
                    pixels = future.result()
                except MedclipError as error:  # the process died or took too long
                    pixels = Pixels("", problem=error.problem())
                if pixels.images is not None:
                    for batch in batches:
                        batch.add(number, pixels.images)
                pixels_of.append(pixels if keep_pixels else Pixels(pixels.sha256, None, pixels.way, pixels.problem))
                step(1)
            for batch in batches:
                batch.wait()
        return [self._unit(pixels, of_models) for pixels, of_models in zip(pixels_of, rows, strict=True)]

    def _unit(self, pixels: Pixels, of_models: Sequence[Sequence[NDArray[np.float32]]]) -> ReadUnit:
        nothing = np.empty((0, self._model.dim), np.float32)
        problem = pixels.problem
        if problem is None and not all(np.isfinite(f).all() for rows in of_models for f in rows):
            problem = Problem(Reason.NON_FINITE, "the model's features of this image are not finite numbers.")
        if problem is not None:
            return ReadUnit(pixels.sha256, NO_PIXELS, nothing, problem, pixels.way)
        first, *others = (np.stack(rows) for rows in of_models)
        kept = NO_PIXELS if pixels.images is None else pixels.images
        return ReadUnit(pixels.sha256, kept, first, None, pixels.way, tuple(others))


def encode_units(model: ImageEncoder, pixels: Sequence[Images]) -> list[NDArray[np.float32]]:
    """Encode the views of units, each at the model's size, into float32 [V, D] of unit norm."""
    rows: list[list[NDArray[np.float32]]] = [[] for _ in pixels]
    with encoder_threads() as (threads, num_threads):
        batches = Batches(model, threads, num_threads, lambda n, f: rows[n].append(f.copy()))
        for number, views in enumerate(pixels):
            batches.add(number, views)
        batches.wait()
    return [np.stack(views) for views in rows]
