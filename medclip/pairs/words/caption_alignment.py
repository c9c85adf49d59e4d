"""Alignment of captions with their images: the cosine of a pack, of shards read once in their order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medclip.models.model import Model
from medclip.progress import Progress
from medclip.shards.folder import read_index
from medclip.shards.reading.samples import ShardReader


def alignment_of(model: Model, folder: Path, texts: Sequence[Sequence[str]], progress: Progress) -> NDArray[np.float64]:
    """Return the cosine of each text with the image of its row, float64 [sum of texts]; NaN where there is no image.

    Args:
        model: Model with both towers.
        folder: Shards of images.
        texts: Texts of each row, in the order of splits and samples.
        progress: Progress bar of the rows.
    """
    progress.stage("Scoring captions", len(texts))
    cosines: list[NDArray[np.float64]] = []
    row = 0
    for split in read_index(folder)["counts"]["by_split"]:
        with ShardReader(folder, split) as reader:
            for i in range(len(reader)):
                of_row = list(texts[row])
                row += 1
                progress.step()
                if not of_row:
                    continue
                sample = reader[i]
                if not sample.image.size:
                    cosines.append(np.full(len(of_row), np.nan))
                    continue
                modality = sample.record.modality
                vector = model.embed_images([sample.image], modality=None if modality is None else str(modality))
                cosines.append((model.embed_text(of_row) @ vector[0]).astype(np.float64))
    return np.concatenate(cosines) if cosines else np.zeros(0)
