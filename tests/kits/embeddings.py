"""A small folder of embeddings, made by code: random unit vectors of studies that do not exist."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.embeddings.embedded_unit import EmbeddedUnit, EmbeddingPack
from medclip.embeddings.write_embeddings import write_embeddings
from medclip.files.tables.write import write_rows
from medclip.runs.rows import FileRow

PACK = EmbeddingPack("tiny", "1", "d" * 64, "t" * 64, "p" * 16)


def unit_vectors(rng: np.random.Generator, num: int, dim: int) -> NDArray[np.float32]:
    """Draw unit vectors, float32 [num, dim]."""
    vectors = rng.normal(size=(num, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_units(num: int, dim: int = 8, seed: int = 0, **values: Any) -> list[EmbeddedUnit]:
    """Make units in rows 1 to `num`, some with several views, two to a study."""
    rng = np.random.default_rng(seed)
    return [
        EmbeddedUnit(
            **{
                "row": n + 1,
                "study": f"study{n % max(1, num // 2)}",
                "grouped": f"study{n % max(1, num // 2)}",
                "patient": f"patient{n % max(1, num // 4)}",
                "modality": "xray",
                "kind": "image",
                "sha256": f"{n:064x}",
                "features": unit_vectors(rng, 1 + n % 3, dim),
                **values,
            }
        )
        for n in range(num)
    ]


def write_store(
    folder: Path, units: Sequence[EmbeddedUnit], pack: EmbeddingPack = PACK, *, dim: int = 8, **values: Any
) -> Path:
    """Write a folder of embeddings with a file for each unit."""
    files = [
        FileRow(
            unit.row,
            f"{unit.row:06}.png",
            unit.sha256,
            100,
            "png",
            "embedded",
            None,
            None,
            unit.study,
            unit.modality,
            "table",
            kind=unit.kind,
            unit=unit.row,
            adapter=unit.modality,
            steps="[]",
        )
        for unit in units
    ]
    write_rows(folder / "files.parquet", FileRow, files)
    (folder / "run.json").write_text(json.dumps({"medclip": "0", "model": {}, "options": {}, "counts": {}}))
    write_embeddings(folder, units, pack, dim=dim, **values)
    return folder


def embed_files(folder: Path, model: Any, root: Path, modality: str = "xray") -> Path:
    """Embed the files below a folder, each a study of its own.

    Args:
        folder: Of the embeddings.
        model: A pack, or a loaded model of one.
        root: What is embedded.
        modality: Of all of them.
    """
    from medclip.api.embed import embed

    return embed(root, folder, model=model, modality=modality, group_by="file", workers=1).folder
