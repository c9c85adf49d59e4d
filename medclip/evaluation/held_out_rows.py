"""Which samples of a split a model is measured on, whose they are, and how they are read."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.training.batches.samples import Made, Samples

if TYPE_CHECKING:
    from medclip.shards.reading.samples import ShardReader

_AHEAD = 2


@dataclass(frozen=True, eq=False)
class HeldOutRows:
    """N samples of a split that nothing was learned from."""

    rows: NDArray[np.int64]
    """Their numbers in the split."""
    patients: tuple[str | None, ...]
    """Of each; None where the shards do not say."""
    sources: tuple[str, ...]
    num_seen: int
    """Samples left out because they, or another one of their patient, were trained on."""
    limit: int | None
    """The most that were asked for."""

    @property
    def names_patients(self) -> bool:
        """Whether the shards say whose each image is."""
        return None not in self.patients

    def whose(self, places: Sequence[int]) -> tuple[list[Hashable], list[str]]:
        """Return what resamples are drawn of, for some of the rows, and what a reader must know of it."""
        notes = []
        whose: list[Hashable] = [self.patients[i] for i in places]
        if not self.names_patients:
            whose = list(range(len(whose)))
            notes.append(
                "The shards do not say whose each image is: intervals are over images, which makes them narrow."
            )
        if self.limit is not None and len(self.rows) == self.limit:
            notes.append(
                f"At most {self.limit:,} images were to be measured, spread evenly over the split (data.max_test)."
            )
        return whose, notes


def choose_rows(reader: ShardReader, seen: frozenset[str], limit: int | None) -> HeldOutRows:
    """Choose the samples of a split to measure on.

    Args:
        reader: The split.
        seen: sha256 of the training files and hashes of the training patients; what is among them is left out.
        limit: The most samples, spread evenly over the split.

    Raises:
        MedclipError: NOTHING_TO_DO when none is left.
    """
    kept, patients, sources, num_seen = [], [], [], 0
    for i, row in enumerate(reader.provenance()):
        if not seen.isdisjoint({*row["files"], row["patient"]}):
            num_seen += 1
            continue
        kept.append(i)
        patients.append(row["patient"] if row["patient"] and row["names_patient"] else None)
        sources.append(str(row["source"] or "unnamed"))
    if not kept:
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            f"all images of the split {reader.split!r} are of patients or files that the model was trained on.",
            where=reader.folder,
            hint="Name a split of other patients with data.test_split; data.test_split=null measures none.",
        )
    places = list(range(len(kept)))
    if limit is not None and len(kept) > limit:
        places = np.unique(np.linspace(0, len(kept) - 1, limit).round().astype(np.int64)).tolist()
    return HeldOutRows(
        np.array([kept[i] for i in places], np.int64),
        tuple(patients[i] for i in places),
        tuple(sources[i] for i in places),
        num_seen,
        limit,
    )


def blocks_of(
    pool: ThreadPoolExecutor, samples: Samples, rows: NDArray[np.int64], size: int
) -> Iterator[tuple[int, list[Made]]]:
    """Yield samples in blocks, each with the place of its first; a few blocks are read ahead."""
    waiting: deque[tuple[int, list[Future[Made]]]] = deque()
    for start in range(0, len(rows), size):
        waiting.append((start, [pool.submit(samples.make, 0, int(i)) for i in rows[start : start + size]]))
        if len(waiting) > _AHEAD:
            yield _waited(*waiting.popleft())
    while waiting:
        yield _waited(*waiting.popleft())


def _waited(place: int, futures: Sequence[Future[Made]]) -> tuple[int, list[Made]]:
    return place, [future.result() for future in futures]
