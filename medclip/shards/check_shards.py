"""Check what training is to be on: a shard folder, or the table that one is built from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medclip.files.stores.remote import RemotePath, place_of
from medclip.shards.reading.check_folder import ShardCheck, check_shards
from medclip.shards.writing.splits import DEFAULT_SPLITS
from medclip.shards.writing.summary import ShardPlan, plan_shards


def check(
    path: Any,
    *,
    splits: Mapping[str, float] = DEFAULT_SPLITS,
    seed: int = 0,
    key: bytes = b"",
    images: Path | None = None,
    patient: str | None = None,
) -> ShardCheck | ShardPlan:
    """Check a shard folder: hashes, counts, splits. Or count what a table is understood to hold; nothing is written.

    Args:
        path: A shard folder, here or as a URL in a store; or a CSV, TSV or Parquet file or a data frame, before shards
            are built from it.
        splits: Of a table: shares by patient.
        seed: Of a table: of the draw of patients.
        key: Of a table: identity key; without the key of the build, patients may come to other sides.
        images: Of a table: folder that its files are relative to.
        patient: Of a table: column that names the patient, or "file".

    Returns:
        What was found. `.ok` says whether nothing is wrong with the folder, or no file of the table is missing.

    Raises:
        MedclipError: MISSING_FILE, TABLE_INVALID.
    """
    if isinstance(path, str | Path):
        place = place_of(path)
        if isinstance(place, RemotePath) or not os.path.isfile(place):  # unlike Path.is_file, this takes any name
            return check_shards(place)
    return plan_shards(path, splits=splits, seed=seed, key=key, images=images, patient=patient)
