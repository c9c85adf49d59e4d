"""A small folder of embeddings, made by code: random unit vectors of studies that do not exist."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.table import LabelledUnit
from medclip.embeddings.embedded_unit import EmbeddedUnit, EmbeddingPack
from medclip.embeddings.write_embeddings import write_embeddings
from medclip.files.recognise.sniff import sniff
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
        FileRow(unit.row, f"{unit.row:06}.png", unit.sha256, 100, "png", "embedded", None, None, unit.study,
                unit.modality, "table", kind=unit.kind, unit=unit.row, adapter=unit.modality, steps="[]")
        for unit in units
    ]  # fmt: skip
    write_rows(folder / "files.parquet", FileRow, files)
    (folder / "run.json").write_text(json.dumps({"medclip": "0", "model": {}, "options": {}, "counts": {}}))
    write_embeddings(folder, units, pack, dim=dim, **values)
    return folder


def embed_files(
    folder: Path, model: Any, root: Path, modality: str = "xray", *, skipped: Mapping[str, str] | None = None
) -> Path:
    """Write the embeddings of all files below a folder, each a study of its own, as a plain loop makes them.

    Args:
        folder: Of the embeddings.
        model: A loaded pack.
        root: What is embedded; a file that cannot be read has its row.
        modality: Of all of them.
        skipped: Reason of files that are not read, by name.
    """
    from medclip.files.discover import discover
    from medclip.models.packs.manifest import pack_digest
    from medclip.models.unit_reader import UnitReader
    from medclip.sample import Modality
    from medclip.settings import Settings

    refs = list(discover(root))
    named = [LabelledUnit(n, ref.path, "", Modality(modality), None, 0) for n, ref in enumerate(refs, 1)]
    with UnitReader(model, Settings(workers=1)) as reader:
        read = reader.read(named, lambda _: None, keep_pixels=False)
    files, units = [], []
    for row, (ref, unit) in enumerate(zip(refs, read, strict=True), 1):
        reason = (skipped or {}).get(ref.name) or (unit.problem and str(unit.problem.reason))
        message = None if reason is None else unit.problem.message if unit.problem else "It was passed over."
        status, study = "scored" if reason is None else "failed", f"study{row}"
        files.append(
            FileRow(row, ref.name, unit.sha256 or None, ref.size_bytes, sniff(ref.path), status, reason, message, study,
                    modality, "option", kind="image", unit=row)
        )  # fmt: skip
        if reason is None:
            units.append(EmbeddedUnit(row, study, study, None, modality, "image", unit.sha256, unit.features))
    folder.mkdir()
    write_rows(folder / "files.parquet", FileRow, files)
    (folder / "run.json").write_text(json.dumps({"medclip": "0", "model": {}, "options": {}, "counts": {}}))
    pack = EmbeddingPack(model.name, "1", pack_digest(model.path), "t" * 64, model.preprocess.digest())
    write_embeddings(folder, units, pack, dim=model.dim)
    return folder
