"""Embed a folder: the run of `medclip.runs.conduct` that keeps the vectors of its units and asks nothing.

Whatever tasks there are, each unit that an adapter reads gets its vectors; what `score` would pass over for its
question is decided when the question is put.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from medclip.adaptation.pack.pack_head import read_pack_texts
from medclip.embeddings.embedded_unit import DTYPES, EmbeddingPack
from medclip.embeddings.open_embeddings import Embeddings, is_embeddings, open_embeddings
from medclip.embeddings.write_embeddings import begin_embeddings, write_embeddings
from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.tables.write import write_rows
from medclip.models.packs.image_tower import image_tower_digest, pixels_digest
from medclip.models.packs.manifest import read_config
from medclip.models.packs.pack import load_model, read_preprocess
from medclip.runs.call import Call, RunPack, pack_of_call
from medclip.runs.conduct import conduct
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.operations.preview import preview
from medclip.runs.outputs.results import EMBED, EMBEDDED, FILES, embedded_counts, write_run
from medclip.runs.rows import FileRow
from medclip.runs.units.chunk import Answers
from medclip.runs.units.unit_rows import unit_rows, units_in
from medclip.runs.verb import Verb
from medclip.scoring.only_modality import only_modality
from medclip.scoring.run import infer_of


def run_embedding(call: Call, *, dtype: str = "float32") -> Embeddings:
    """Embed the files below a path into a folder.

    Args:
        call: Files, model and options of the run.
        dtype: Type of the stored vectors: float32 or float16.

    Raises:
        MedclipError: WRONG_USE for another dtype; as `conduct`.
    """
    pack, verb = _pack_and_verb(call, dtype)
    counts, already = conduct(call, pack, verb)
    if call.shard is not None:
        return replace(_without_vectors(call, pack, dtype, counts), already_finished=already, shard=str(call.shard))
    return replace(open_embeddings(call.folder), already_finished=already)


def preview_embedding(call: Call, *, dtype: str = "float32") -> Embeddings:
    """Return what embedding would do; nothing is written.

    Args:
        call: Files, model and options of the run.
        dtype: Type of the stored vectors, as `run_embedding` takes it; it is checked.

    Raises:
        MedclipError: As `run_embedding` before it looks at a file, and `preview`.
    """
    pack, verb = _pack_and_verb(call, dtype)
    counts, files, planned = preview(call, pack, verb)
    return replace(_without_vectors(call, pack, dtype, counts), planned=planned, _files=files)


def _pack_and_verb(call: Call, dtype: str) -> tuple[RunPack, Verb]:
    if dtype not in DTYPES:
        raise MedclipError(
            Reason.WRONG_USE, f"vectors are not stored as {dtype!r}.", hint=did_you_mean(dtype, DTYPES, "Types are")
        )
    pack = pack_of_call(call)
    return pack, Verb(
        stage="Reading and embedding",
        identity={"command": EMBED, "dtype": dtype},
        answers=partial(_answers, pack),
        write=partial(_write, call, pack, dtype),
        begin=partial(_begin, call.folder),
        compute=partial(begin_embeddings, call.folder),  # a folder that is half written says so
        shows_parts=False,
        keeps_looks=True,
        notes=() if call.backend is None else call.backend.notes,
        only=only_modality(pack.card, read_pack_texts(pack.path, pack.card), read_preprocess(pack.path)),
    )


def _without_vectors(call: Call, pack: RunPack, dtype: str, counts: dict[str, int]) -> Embeddings:
    """Return what a shard and a dry run have: counts."""
    known = embedding_pack(pack.path, pack.card, pack.digest)
    return Embeddings(call.folder, known, 0, dtype, 0, 0, 0, own_counts=embedded_counts(counts))


def embedding_pack(path: Path, card: Any, digest: str) -> EmbeddingPack:
    """Return what a folder of embeddings remembers of a pack."""
    return EmbeddingPack(card.name, str(card.version), digest, image_tower_digest(path), pixels_digest(path))


def _begin(folder: Path) -> None:
    """Mark a new folder at once, so that one whose run is killed early is never taken for a folder of images."""
    if not is_embeddings(folder):
        begin_embeddings(folder)


def _answers(pack: RunPack, model: Any) -> Answers:
    return Answers(
        infer=infer_of(model, pack.card),
        refuse=lambda modality, body_part, kind: None,
        refuse_stranger=lambda modality: None,
        result=lambda work: work.result(units=unit_rows(work)),
    )


def _write(call: Call, pack: RunPack, dtype: str, ledger: Ledger, run: dict[str, Any]) -> None:
    folder, dim = call.folder, _dim(pack)
    begin_embeddings(folder)
    files = (replace(row, status=EMBEDDED) if row.status == "scored" else row for row in ledger.files())
    write_rows(folder / FILES, FileRow, files)
    write_embeddings(
        folder,
        units_in(ledger, dim),
        embedding_pack(pack.path, pack.card, pack.digest),
        dim=dim,
        dtype=dtype,
        by_study=units_in(ledger, dim, by_study=True),
        failed=units_in(ledger, dim, failed=True),
        thumbnails=ledger.thumbnails(),
    )
    run = {**run, "options": {**run["options"], "dtype": dtype}, "identity": ledger.get("identity")}
    write_run(folder, run, embedded_counts(ledger.counts()))


def _dim(pack: RunPack) -> int:
    """Return the length of a pack's vectors; the config of an image tower alone may leave it to the tower."""
    stated = read_config(pack.path)["model_cfg"].get("embed_dim")
    return int(stated) if stated else load_model(pack.path, verify=False).dim
