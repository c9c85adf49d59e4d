"""Examinations of a shard folder as vectors: those of their views, and what a model fuses them to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.models.packs.pack import load_model
from medclip.sample import ViewType
from medclip.shards.reading.samples import ShardReader

Vectors = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Exams:
    """Some examinations with one model."""

    model: Any
    patients: tuple[str, ...]
    views: tuple[tuple[ViewType, ...], ...]
    vectors: tuple[Vectors, ...]
    """[V, D] of each."""
    labels: tuple[dict[str, Any], ...]
    """Of each examination."""
    view_labels: tuple[tuple[dict[str, Any], ...], ...]
    texts: tuple[tuple[tuple[str, ...], ...], ...]
    """Of each view."""
    hashes: tuple[tuple[str, ...], ...]
    """Of the source file of each view."""

    def fused(self, number: int, side: str | None = None) -> Vectors:
        """Return the vector [D] of an examination, or of one of its breasts that has a view."""
        rows = [i for i, view in enumerate(self.views[number]) if side in (None, view.side)]
        return self.model.fuse(self.vectors[number][rows], [self.views[number][i] for i in rows])[0]

    def one(self, number: int, side: str, position: str) -> Vectors | None:
        """Return the vector of one view; None where it is not there."""
        for i, view in enumerate(self.views[number]):
            if (view.side, view.position) == (side, position):
                return self.vectors[number][i]
        return None

    @cached_property
    def wholes(self) -> Vectors:
        """Return the fused vectors of all examinations, [N, D]."""
        return np.stack([self.fused(n) for n in range(len(self.views))])


def encode(pack: Path, shards: Path, split: str, store: Path | None = None) -> Exams:
    """Encode every view of a split.

    Args:
        pack: With a fusion.
        shards: Of `medclip shards build --group exam`, or `breast`.
        split: train, val or test.
        store: Vectors are kept here and read from here, where named.
    """
    model = load_model(pack)
    with ShardReader(shards, split) as reader:
        samples = [reader.record(i) for i in range(len(reader))]
        views = [reader.views(i, reader.members(i)) for i in range(len(reader))]
        patients = [str(row["patient"]) for row in reader.rows]
        if store is not None and store.is_file():
            stacked = np.load(store)
        else:
            stacked = np.concatenate([_encoded(model, reader[i].images) for i in range(len(reader))])
            if store is not None:
                store.parent.mkdir(parents=True, exist_ok=True)
                np.save(store, stacked)
    ends = np.cumsum([len(own) for own in views])[:-1]
    return Exams(
        model=model,
        patients=tuple(patients),
        views=tuple(tuple(view.view for view in own) for own in views),
        vectors=tuple(np.split(stacked, ends)),
        labels=tuple(dict(record.labels) for record, _ in samples),
        view_labels=tuple(tuple(dict(view.labels) for view in own) for own in views),
        texts=tuple(tuple(view.texts for view in own) for own in views),
        hashes=tuple(tuple(view.sha256 for view in own) for own in views),
    )


def _encoded(model: Any, images: Sequence[NDArray[np.uint8]]) -> Vectors:
    return model.encode_image(np.stack([model.preprocess.fit(image) for image in images]))
