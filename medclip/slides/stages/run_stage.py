"""Run a stage over a folder of slides: a run of `medclip.runs.conduct`, with a row for each slide at the end.

| in the output folder | content |
|---|---|
| tissue/ | of `tissue`: KEY.png (the mask), KEY.geojson (its outlines) |
| patches/ | of `patches`: KEY.h5 (the places), KEY.geojson (their squares) |
| features/KEY.h5 | of `embed`: the vectors |
| unfinished/ | of `embed`: slides under way |
| slides.parquet, files.parquet, run.json, ledger.sqlite | of `embed`; others have theirs in their own folder |
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medclip.adapters.registry import slot
from medclip.embeddings.embedded_unit import DTYPES, EmbeddingPack
from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.output import digest_of
from medclip.files.readers.memory import budget_bytes
from medclip.files.tables.write import write_rows
from medclip.imaging.slides.stain import METHODS, TARGETS, StainMethod, StainOptions, to_lab
from medclip.result import Result
from medclip.runs.call import Call, RunPack, pack_of_run
from medclip.runs.conduct import conduct
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs.results import FILES, write_run
from medclip.runs.planning.plan import Chunk
from medclip.runs.rows import ChunkResult, FileRow
from medclip.runs.units.chunk import Context
from medclip.runs.verb import Verb
from medclip.sample import Kind, Modality
from medclip.settings import Settings
from medclip.slides.slide_store import (
    DONE,
    FEATURES,
    SLIDES,
    SlideRow,
    SlideStore,
    as_dicts,
    open_slide_store,
    read_slide_rows,
)
from medclip.slides.stages.options import NO_LIMIT_BYTES, GridOptions
from medclip.slides.stages.reading import Staging
from medclip.slides.stages.shares import Shares
from medclip.slides.stages.stage import UNFINISHED, EmbedStage, PatchesStage, TissueStage
from medclip.slides.stages.stage_files import MEASURES, PATCHES, TISSUE, measure_quality
from medclip.slides.stages.work import SlideWork

EMBED = "embed"
STAGES = (TISSUE, PATCHES, EMBED)
_CACHES = 8
"""Of the memory of all processes, the share that decoded tiles may take, as its reciprocal."""


@dataclass(frozen=True, eq=False, repr=False)
class StageRun(Result):
    """What a stage made of a folder of slides."""

    stage: str
    """tissue, patches or embed."""
    folder: Path
    """Output folder of all stages."""
    rows: tuple[SlideRow, ...]
    """One for each slide, in the order of names."""
    num_files: int
    """All files, those that are no slides included."""
    num_failed: int
    """Files that failed."""
    time: dict[str, Any] = field(default_factory=dict)
    """Where it went: shares of read, decode, model and write, and `data_wait`; of this call alone."""
    already_finished: bool = False
    """The folder held this very run, complete; nothing was computed or rewritten."""

    @property
    def counts(self) -> dict[str, int]:
        """Slides by status."""
        names = Counter(row.status for row in self.rows)
        return {name: names[name] for name in (DONE, "skipped", "failed")}

    @property
    def exit_code(self) -> int:
        """0 when every file ended well or was skipped, 3 when some failed."""
        return 3 if self.num_failed else 0

    @property
    def num_patches(self) -> int:
        """Patches of all slides that were read, without those that are lost."""
        return sum((row.num_patches or 0) - (row.num_lost or 0) for row in self.rows if row.status == DONE)

    @property
    def store(self) -> SlideStore:
        """The vectors, after the stage `embed`.

        Raises:
            MedclipError: MISSING_FILE after another stage.
        """
        return open_slide_store(self.folder)

    @property
    def num_lost(self) -> int:
        """Patches whose stored pixels are damaged."""
        return sum(row.num_lost or 0 for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: counts, reasons and time, no name of a file."""
        reasons = [{"status": status, "reason": reason, "slides": n} for status, reason, n in reasons_of(self.rows)]
        return {
            "stage": self.stage,
            "out": str(self.folder),
            "exit_code": self.exit_code,
            "slides": len(self.rows),
            **self.counts,
            "files": self.num_files,
            "failed_files": self.num_failed,
            "patches": self.num_patches,
            "lost_patches": self.num_lost,
            "reasons": reasons,
            "time": self.time,
        }

    def _facts(self) -> dict[str, object]:
        return {
            "stage": self.stage,
            "slides": ", ".join(f"{number:,} {name}" for name, number in self.counts.items()),
            "patches": f"{self.num_patches:,}",
            "folder": self.folder,
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return as_dicts(self.rows, most)


def reasons_of(rows: tuple[SlideRow, ...]) -> list[tuple[str, str, int]]:
    """Count the slides that ended otherwise by status and reason, failed ones first, then the most frequent."""
    counts = Counter((row.status, row.reason) for row in rows if row.reason is not None)
    ordered = sorted(counts.items(), key=lambda item: (item[0][0], -item[1], item[0]))
    return [(status, str(reason), num) for (status, reason), num in ordered]


def run_stage(
    call: Call,
    stage: str,
    options: GridOptions,
    *,
    dtype: str = "float32",
    qc: bool = False,
    stain: str | None = None,
    geojson: bool = True,
    stage_to: Path | None = None,
) -> StageRun:
    """Run a stage over the slides below a path.

    Args:
        call: Files and options of the run; `call.folder` is the folder of all stages.
        stage: Name of the stage: tissue, patches or embed.
        options: Options of tissue and grid.
        dtype: Type of the vectors that `embed` stores: float32 or float16.
        qc: Whether `embed` measures each patch, too.
        stain: Method by which `embed` makes colours alike before patches are encoded: hed, macenko or reinhard; None
            does not.
        geojson: Whether `tissue` and `patches` write outlines for QuPath.
        stage_to: A folder on a quick disk that slides are copied to before they are read.

    Raises:
        MedclipError: WRONG_USE for a model that takes no such images; MISSING_CODEC for reinhard without scikit-image;
            as `medclip.runs.conduct.conduct`.
    """
    normalise = _stain_method(stain)
    if stage not in STAGES or dtype not in DTYPES:
        wrong, choices = (stage, STAGES) if stage not in STAGES else (dtype, DTYPES)
        raise MedclipError(Reason.WRONG_USE, f"there is no {wrong!r}.", hint=did_you_mean(wrong, choices, "There are"))
    settings = _within(replace(call.settings, max_file_bytes=NO_LIMIT_BYTES))
    folder = call.folder
    call = replace(
        call,
        folder=folder if stage == EMBED else folder / stage,
        settings=settings,
        options=replace(call.options, modality=call.options.modality or Modality.PATHOLOGY, thumbnails=False),
    )
    pack = embedding_pack = None
    if stage == EMBED:
        pack = pack_of_run(call.model, settings, call.device, call.batch_size)
        refuse_other_models(pack)
        embedding_pack = _embedding_pack(pack, normalise)
    shares = Shares()
    make = partial(_stage, stage, folder, options, settings, embedding_pack, dtype, qc, normalise, geojson)
    stained: dict[str, Any] = {} if stain is None else {"stain": stain}
    identity: dict[str, Any] = {"command": f"slides {stage}"}
    identity |= {"grid": options.digest, "dtype": dtype, "qc": qc} | stained if stage == EMBED else {"geojson": geojson}
    identity |= {TISSUE: {"grid": options.tissue_digest}, PATCHES: {"grid": options.digest}}.get(stage, {})
    what = {"stage": stage, "options": options.to_dict(), "tissue": options.tissue_digest, "grid": options.digest}
    if embedding_pack is not None:
        what |= {"pack": embedding_pack.to_dict(), "dtype": dtype, "qc": qc} | stained
    verb = Verb(
        stage={TISSUE: "Finding tissue", PATCHES: "Laying grids", EMBED: "Embedding slides"}[stage],
        identity=identity,
        answers=None,
        write=partial(_write, call.folder, what),
        shows_parts=False,
        work=partial(_work, make, shares, stage_to),
        lacks=partial(
            _lacking, call.folder / FEATURES if stage == EMBED else call.folder, ".png" if stage == TISSUE else ".h5"
        ),
        beside=(TISSUE, PATCHES) if stage == EMBED else (),
    )
    counts, already = conduct(call, pack, verb)
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    rows = read_slide_rows(call.folder / SLIDES)
    time = {} if already or not shares.wall_s else shares.to_dict()
    return StageRun(stage, folder, rows, counts["files"], counts["failed"], time, already)


def _stage(
    stage: str,
    folder: Path,
    options: GridOptions,
    settings: Settings,
    pack: EmbeddingPack | None,
    dtype: str,
    qc: bool,
    stain: StainMethod | None,
    geojson: bool,
    model: Any,
) -> TissueStage | PatchesStage | EmbedStage:
    if stage == TISSUE:
        return TissueStage(folder, options, settings, geojson)
    if stage == PATCHES:
        return PatchesStage(folder, options, settings, geojson)
    measures, measure = (MEASURES, measure_quality) if qc else ((), None)
    return EmbedStage(folder, options, settings, pack, model, dtype, measures, measure, stain)


def _work(
    make: Callable[[Any], TissueStage | PatchesStage | EmbedStage],
    shares: Shares,
    stage_to: Path | None,
    context: Context,
    ledger: Ledger,
    chunks: Iterator[Chunk],
    commit: Callable[[ChunkResult], None],
) -> None:
    staging = None if stage_to is None else Staging(stage_to)
    try:
        SlideWork(make(context.model), context, ledger, commit, shares, staging).run(chunks)
    finally:
        if staging is not None:
            staging.close()


def _write(folder: Path, what: dict[str, Any], ledger: Ledger, run: dict[str, Any]) -> None:
    """Write the tables of a complete ledger: one row for each file, and one for each slide."""
    files = list(ledger.files())
    patients = {values[0]: values[3] for failed in (False, True) for values in ledger.units(failed=failed)}
    rows = [replace(row, status=DONE) if row.status == "scored" else row for row in files]
    write_rows(folder / FILES, FileRow, (replace(row, headers=None) for row in rows))
    write_rows(folder / SLIDES, SlideRow, _slide_rows(rows, patients))
    write_run(folder, {**run, **what}, _counts(ledger))


def _slide_rows(files: list[FileRow], patients: dict[int, str | None]) -> Iterator[SlideRow]:
    """Yield the row of each slide: that of its first file, with what the stage learnt of it."""
    members = Counter(row.unit for row in files if row.unit is not None)
    columns = {f.name for f in fields(SlideRow)}
    for row in files:
        if row.headers is None or row.unit not in (None, row.row):
            continue
        facts = {name: value for name, value in json.loads(row.headers).items() if name in columns}
        yield SlideRow(
            **(
                {"sha256": row.sha256, "num_files": members.get(row.unit, 1) if row.unit else 1}
                | facts
                | {
                    "file": row.path,
                    "status": row.status,
                    "reason": row.reason,
                    "message": row.message,
                    "study": row.study,
                    "patient": patients.get(row.row),
                }
            )
        )


def _lacking(folder: Path, suffix: str, ledger: Ledger) -> list[int]:
    """Return the ids of the slides that are done, and whose file is gone."""
    names = [
        row.path
        for row in ledger.files()
        if row.status == "scored"
        and row.headers
        and not (folder / f"{json.loads(row.headers)['key']}{suffix}").exists()
    ]
    return [file.id for file in ledger.known(names).values()]


def _counts(ledger: Ledger) -> dict[str, int]:
    return {DONE if name == "scored" else name: number for name, number in ledger.counts().items()}


def _within(settings: Settings) -> Settings:
    """Return settings whose caches of decoded tiles fit the memory that all processes have."""
    budget = budget_bytes(settings.memory_bytes)
    if budget is None:
        return settings
    share = max(16 << 20, budget // _CACHES // settings.workers)
    return replace(settings, slide_cache_bytes=min(settings.slide_cache_bytes, share))


def _embedding_pack(pack: RunPack, stain: StainMethod | None) -> EmbeddingPack:
    """Return the pack as the store names it: colours that are made alike are other pixels."""
    from medclip.models.packs.image_tower import image_tower_digest, pixels_digest

    card = pack.card
    pixels = pixels_digest(pack.path)
    if stain is not None:
        target = TARGETS[stain]
        colours = [target.white, target.vectors_SC.tolist(), target.strength_S.tolist(), target.lab_mean, target.lab_sd]
        pixels = digest_of([pixels, asdict(StainOptions(stain)), colours])
    return EmbeddingPack(card.name, str(card.version), pack.digest, image_tower_digest(pack.path), pixels)


def _stain_method(name: str | None) -> StainMethod | None:
    """Return a way of making colours alike, once all that it needs is there."""
    if name is None:
        return None
    for method in METHODS:
        if method == name:
            if method == "reinhard":
                to_lab(np.zeros((1, 3), np.uint8))
            return method
    raise MedclipError(
        Reason.WRONG_USE,
        f"there is no way of making stains alike called {name!r}.",
        hint=did_you_mean(name, METHODS, "There are"),
    )


def refuse_other_models(pack: RunPack) -> None:
    """Refuse a model that patches of slides are nothing for, before anything is read.

    Raises:
        MedclipError: WRONG_USE.
    """
    from medclip.models.packs.pack import read_preprocess

    preprocess = read_preprocess(pack.path)
    if preprocess.volume is not None or preprocess.signal is not None:
        raise MedclipError(
            Reason.WRONG_USE,
            f"this model takes {preprocess.takes}, and patches of slides are images.",
            where=pack.path,
            hint="Name another model with --model.",
        )
    # An imported pack was not trained through adapters of ours; its card says what it is for, if that was named.
    modalities = set(preprocess.adapters) or set(pack.card.modalities)
    if modalities and not {str(Modality.PATHOLOGY), slot(Modality.PATHOLOGY, Kind.SLIDE)} & modalities:
        raise MedclipError(
            Reason.WRONG_USE,
            "this model was not trained on pathology.",
            where=pack.path,
            hint="Name another model with --model.",
        )
