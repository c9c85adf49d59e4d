"""A store of slides in the forms of others, one file or folder for each slide."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_folder, in_use, new_folder, write_file
from medclip.files.tables.write import csv_bytes, schema_of, table_of
from medclip.progress import Progress
from medclip.result import named_counts
from medclip.slides.exchange.anndata_file import write_anndata
from medclip.slides.exchange.spatialdata_folder import check_spatialdata, write_spatialdata
from medclip.slides.exchange.tile_table import tile_table
from medclip.slides.stages.tissue_files import TISSUE
from medclip.slides.store.slide_store import DONE, SlideRow, SlideStore
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


def export_slides(store: SlideStore, folder: Path, form: Format, *, overwrite: bool, progress: Progress) -> SlideExport:
    """Write the patches of slides for other programs: one AnnData file, or one SpatialData folder, for each slide.

    Args:
        store: Store of the vectors.
        folder: Folder for KEY.h5ad or KEY.zarr, and slides.csv, which says which slide a key is.
        form: Name of the form, one of `SUFFIXES`.
        overwrite: Whether an export that is in the folder is replaced.
        progress: Progress bar of the slides.

    Raises:
        MedclipError: OUTPUT_IN_USE; MISSING_CODEC without spatialdata.
    """
    if form == "spatialdata":
        check_spatialdata()
    holds = claim_folder(folder, _WHAT, marks=(NOTE,), inputs={"the store of slides": store.folder}, in_one_step=True)
    if holds and not overwrite:
        remedy = "Name another folder, or replace it with --overwrite."
        raise in_use(folder, "this folder holds an export already", remedy)
    progress.stage("Writing slides", len(store.rows))
    slides = []
    with new_folder(folder) as draft:
        for row in store.rows:
            slides.append(_exported(row, store, form, draft))
            progress.step()
        result = SlideExport(tuple(slides), form, folder)
        write_file(draft / SLIDES, csv_bytes(table_of(slides, ExportedSlide, schema_of(ExportedSlide))))
        facts = {**result.to_json(), "out": None, "pack": store.pack.to_dict()}
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
