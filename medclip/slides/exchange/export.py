"""`medclip slides export`: a store of slides in the forms of others, one file or folder for each slide."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.output import claim_folder, in_use, new_folder, write_file
from medclip.files.tables.write import csv_bytes, schema_of, table_of
from medclip.progress import Progress, Silent
from medclip.result import named_counts
from medclip.slides.exchange.anndata_file import write_anndata
from medclip.slides.exchange.spatialdata_folder import check_spatialdata, write_spatialdata
from medclip.slides.exchange.tile_table import tile_table
from medclip.slides.stages.tissue_files import TISSUE
from medclip.slides.store.slide_store import DONE, SlideRow, SlideStore, open_slide_store
from medclip.slides.store.step_row import StepResult, StepRow

Format = Literal["anndata", "spatialdata"]
SUFFIXES: dict[Format, str] = {"anndata": ".h5ad", "spatialdata": ".zarr"}
SLIDES, NOTE = "slides.csv", "export.json"
_WHAT = "export of slides"


@dataclass(frozen=True)
class ExportedSlide(StepRow):
    """One slide of a store and what was written of it."""

    written: str | None = None
    """Name of its file or folder."""


@dataclass(frozen=True, eq=False, repr=False)
class SlideExport(StepResult[ExportedSlide]):
    """What was written of a store."""

    format: Format
    out: Path

    def to_json(self) -> dict[str, Any]:
        """Return plain data; no name of a slide's file."""
        written = [slide.written for slide in self.slides if slide.written]
        return {"out": str(self.out), "format": self.format, "counts": self.counts, "written": written}

    def _facts(self) -> dict[str, object]:
        return {"slides": named_counts(self.counts), "format": self.format, "folder": self.out}

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [asdict(slide) for slide in self.slides[:most]]


def export(
    store: SlideStore | str | Path,
    out: str | Path,
    *,
    format: str = "anndata",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SlideExport:
    """Write the patches of slides for other programs: one AnnData file, or one SpatialData folder, for each slide.

    Both have places in pixels of the finest resolution, coverage and quality of each patch, and the tile spec in the
    form of LazySlide (wsidata). `wsidata.open_wsi(slide, store="KEY.zarr")` opens the SpatialData folder.

    Args:
        store: What `medclip slides embed` wrote.
        out: Folder for KEY.h5ad or KEY.zarr, and slides.csv, which says which slide a key is.
        format: "anndata", or "spatialdata" (the extra `spatialdata`), with tissue outlines where `medclip slides
            tissue` left some in the store.
        overwrite: Replace an export that is in `out`.
        progress: Told of each slide.

    Returns:
        One row for each slide of the store, also for those that have no vectors.

    Raises:
        MedclipError: WRONG_USE for another format; OUTPUT_IN_USE; MISSING_CODEC without spatialdata; what opening the
            store raises.

    Example:
        >>> import medclip
        >>> medclip.slides.exchange("store", "for_scanpy")  # doctest: +SKIP
    """
    chosen, progress, folder = _read_format(format), progress or Silent(), Path(out)
    opened = open_slide_store(store)
    if chosen == "spatialdata":
        check_spatialdata()
    holds = claim_folder(folder, _WHAT, marks=(NOTE,), inputs={"the store of slides": opened.folder}, in_one_step=True)
    if holds and not overwrite:
        remedy = "Name another folder, or replace it with --overwrite."
        raise in_use(folder, "this folder holds an export already", remedy)
    progress.stage("Writing slides", len(opened.rows))
    slides = []
    with new_folder(folder) as draft:
        for row in opened.rows:
            slides.append(_exported(row, opened, chosen, draft))
            progress.step()
        result = SlideExport(tuple(slides), chosen, folder)
        write_file(draft / SLIDES, csv_bytes(table_of(slides, ExportedSlide, schema_of(ExportedSlide))))
        facts = {**result.to_json(), "out": None, "pack": opened.pack.to_dict()}
        write_file(draft / NOTE, json.dumps(facts, indent=1, sort_keys=True) + "\n")
    return result


def _exported(row: SlideRow, store: SlideStore, chosen: Format, draft: Path) -> ExportedSlide:
    blank = replace(ExportedSlide.of(row), num_patches=None)  # none of them were written
    if row.status != DONE:
        return blank
    name = f"{row.key}{SUFFIXES[chosen]}"
    try:
        if chosen == "anndata":
            features = store.read(row.key, vectors=False)
            dim = next((block.shape[1] for block in store.blocks(row.key)), 0)
            write_anndata(draft / name, tile_table(store, features), dim, store.blocks(row.key))
        else:
            features = store.read(row.key)
            outlines = store.folder / TISSUE / f"{row.key}.geojson"
            write_spatialdata(draft / name, tile_table(store, features), features.features_ND, outlines)
    except MedclipError as e:
        if e.reason not in _OF_A_SLIDE:
            raise
        return blank.after(e)
    return replace(blank, num_patches=len(features.corners_um_N2), written=name)


_OF_A_SLIDE = (Reason.CORRUPT, Reason.CHANGED, Reason.MISSING_FILE, Reason.OUTPUT_IN_USE)
"""What the file of one slide's vectors may be; others end the export."""


def _read_format(name: str) -> Format:
    for known in get_args(Format):
        if name == known:
            return known
    raise MedclipError(
        Reason.WRONG_USE,
        f"slides cannot be written as {name!r}.",
        hint=did_you_mean(name, get_args(Format), "Formats are"),
    )
