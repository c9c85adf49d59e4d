"""A store of slides in the forms of others, one file or folder for each slide: AnnData and SpatialData.

Patches are as LazySlide's data structure has tiles: places in pixels of the finest resolution, and sizes. wsidata 0.12
(https://github.com/rendeirolab/wsidata) is the model: tiles are named `tiles`, each has `tile_id`, `x` and `y` (upper
left corner) and `tissue_id`; `tile_spec` says how they are cut, `slide_properties` of what, and a table of features is
bound to its tiles by `spatialdata_attrs`.

AnnData files (.h5ad) follow the published layout, https://anndata.readthedocs.io/en/stable/fileformat-prose.html: each
group and data set says by `encoding-type` and `encoding-version` what it is. They are written with h5py: vectors go
from file to file some rows at a time, whatever their number, and anndata itself, which asks for a pandas below 3, is
needed by nobody but the one who reads. Equal values give equal bytes.

`wsidata.open_wsi("slide.svs", store="KEY.zarr")` opens a SpatialData folder (.zarr) beside its slide: shapes `tiles`
and, where the tissue stage left outlines, `tissues`; the table `NAME_tiles` with the vectors; the attributes
`tile_spec` and `slide_properties`. spatialdata does the writing, and holds the vectors of the slide in memory.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_folder, in_use, new_file, new_folder, write_file
from medclip.files.tables.write import csv_bytes, schema_of, table_of
from medclip.progress import Progress
from medclip.result import named_counts
from medclip.slides.slide_features import SlideFeatures, hdf5
from medclip.slides.slide_store import DONE, SlideRow, SlideStore, StepResult, StepRow
from medclip.slides.stages.stage_files import TISSUE

TILES, TISSUES = "tiles", "tissues"
REGION, INSTANCE = "library_id", "tile_id"
SPATIALDATA_ATTRS = {"region": TILES, "region_key": REGION, "instance_key": INSTANCE}


@dataclass(frozen=True, eq=False)
class TileTable:
    """One slide's patches, without their vectors; N of them, in the order of the vectors."""

    columns: Mapping[str, NDArray[Any]]
    """[N] each: tile_id, x, y, and what else is known of a patch."""
    tile_spec: Mapping[str, Any]
    """What `wsidata.TileSpec` takes."""
    slide_properties: Mapping[str, Any]
    medclip: Mapping[str, Any]
    """What computed the vectors, and of which pixels."""

    def __len__(self) -> int:
        return len(self.columns[INSTANCE])

    @property
    def corners_px_N2(self) -> NDArray[np.int64]:
        """Corner of each patch: x and y, int64 [N, 2]."""
        return np.stack([self.columns["x"], self.columns["y"]], axis=1)


def tile_table(store: SlideStore, features: SlideFeatures) -> TileTable:
    """Return the tiles of a slide.

    Args:
        store: Store of the slide.
        features: Features of the slide; vectors are not looked at.
    """
    num = len(features.corners_um_N2)
    finest = features.slide_mpp_um or features.effective_mpp_um
    x, y = features.coords_N2.T
    columns: dict[str, NDArray[Any]] = {
        INSTANCE: np.arange(num, dtype=np.int64),
        "x": x,
        "y": y,
        "top_um": features.corners_um_N2[:, 0],
        "left_um": features.corners_um_N2[:, 1],
        "coverage": features.coverage_N,
        **{name: features.quality[name] for name in sorted(features.quality)},
    }
    overlap = int(store.run.get("options", {}).get("overlap_px", 0))
    side, stride = features.size_px, features.size_px - overlap
    # Read from the finest level and reduced: right for every slide, whatever levels it has.
    reduced = sum(features.effective_mpp_um) / sum(finest)
    spec = {
        **dict.fromkeys(("height", "width"), side),
        **dict.fromkeys(("stride_height", "stride_width"), stride),
        "mpp": sum(features.effective_mpp_um) / 2,
        "ops_level": 0,
        "ops_downsample": reduced,
        "base_level": 0,
        "base_downsample": reduced,
    }
    shape = [round(size / mpp) for size, mpp in zip(features.slide_size_um, finest, strict=True)]
    facts: dict[str, Any] = {
        "slide": features.key,
        "mpp_um": features.mpp_um,
        "effective_mpp_um": list(features.effective_mpp_um),
        "slide_mpp_um": list(finest),
        "grid": features.grid,
        "num_lost": features.num_lost,
        **{f"pack_{name}": value for name, value in features.pack.to_dict().items()},
    }
    facts |= {"stain": store.run["stain"]} if "stain" in store.run else {}
    return TileTable(columns, spec, {"shape": shape, "mpp": sum(finest) / 2}, facts)


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


_CHUNK_BYTES = 1 << 20


def write_anndata(path: Path, tiles: TileTable, dim: int, blocks: Iterable[NDArray[np.floating[Any]]]) -> None:
    """Write one slide.

    Args:
        path: The file.
        tiles: N tiles.
        dim: D, the length of a vector.
        blocks: Vectors of the tiles, float [B, D] each, N rows in all; kept as float32, which all readers take.

    Raises:
        MedclipError: MISSING_CODEC without h5py.
    """
    h5py = hdf5()
    num = len(tiles)
    with new_file(path) as draft, h5py.File(draft, "w", libver=("earliest", "v110")) as file:
        _named(file, "anndata", "0.1.0")
        rows = max(1, min(num, _CHUNK_BYTES // max(1, 4 * dim)))
        vectors = file.create_dataset("X", (num, dim), np.float32, chunks=(rows, dim) if num else None)
        _named(vectors, "array", "0.2.0")
        start = 0
        for block in blocks:
            vectors[start : start + len(block)] = block
            start += len(block)
        names = [str(number) for number in range(num)]
        obs = _frame(file, "obs", names, [*tiles.columns, REGION])
        for name, values in tiles.columns.items():
            _array(obs, name, values)
        region = _named(obs.create_group(REGION), "categorical", "0.2.0")
        region.attrs["ordered"] = False
        _array(region, "codes", np.zeros(num, np.int8))
        _texts(region, "categories", [TILES])
        _frame(file, "var", [f"f{number}" for number in range(dim)], [])
        obsm = _named(file.create_group("obsm"), "dict", "0.1.0")
        _array(obsm, "spatial", tiles.corners_px_N2)
        for name in ("varm", "obsp", "varp", "layers"):
            _named(file.create_group(name), "dict", "0.1.0")
        uns = {
            "spatialdata_attrs": SPATIALDATA_ATTRS,
            "tile_spec": tiles.tile_spec,
            "slide_properties": tiles.slide_properties,
            "medclip": tiles.medclip,
        }
        _mapping(file, "uns", uns)


def _named(element: Any, kind: str, version: str) -> Any:
    element.attrs["encoding-type"], element.attrs["encoding-version"] = kind, version
    return element


def _array(group: Any, name: str, values: NDArray[Any]) -> None:
    _named(group.create_dataset(name, data=values), "array", "0.2.0")


def _texts(group: Any, name: str, values: Sequence[str]) -> None:
    texts = np.array(values, dtype=object)
    _named(group.create_dataset(name, data=texts, dtype=hdf5().string_dtype()), "string-array", "0.2.0")


def _frame(file: Any, name: str, index: Sequence[str], columns: Sequence[str]) -> Any:
    """Begin a data frame: its index, and the order of columns that are still to come."""
    group = _named(file.create_group(name), "dataframe", "0.2.0")
    group.attrs["_index"] = "_index"
    group.attrs.create("column-order", np.array(columns, dtype=object), dtype=hdf5().string_dtype())
    _texts(group, "_index", index)
    return group


def _mapping(parent: Any, name: str, values: Mapping[str, Any]) -> None:
    """Write texts, numbers, lists of numbers and mappings of them."""
    group = _named(parent.create_group(name), "dict", "0.1.0")
    for key, value in values.items():
        if isinstance(value, Mapping):
            _mapping(group, key, value)
        elif isinstance(value, str):
            text = group.create_dataset(key, data=value, dtype=hdf5().string_dtype())
            _named(text, "string", "0.2.0")
        elif isinstance(value, (list, tuple)):
            _array(group, key, np.asarray(value))
        else:
            _named(group.create_dataset(key, data=value), "numeric-scalar", "0.2.0")


def check_spatialdata() -> None:
    """Refuse to go on without spatialdata.

    Raises:
        MedclipError: MISSING_CODEC, with the line that installs it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the libraries below them announce
            import geopandas  # noqa: F401  # pyright: ignore[reportMissingImports]
            import spatialdata  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as e:
        raise MedclipError(
            Reason.MISSING_CODEC,
            "SpatialData folders need spatialdata.",
            hint="Run: pip install 'medclip-imaging[spatialdata]'",
        ) from e


def write_spatialdata(folder: Path, tiles: TileTable, features_ND: NDArray[np.floating[Any]], outlines: Path) -> None:
    """Write one slide.

    Args:
        folder: A new folder.
        tiles: N tiles.
        features_ND: Vectors of the tiles, float [N, D].
        outlines: GeoJSON of the slide's tissue, in pixels of the finest resolution; may be missing.
    """
    import anndata  # pyright: ignore[reportMissingImports]
    import geopandas as gpd  # pyright: ignore[reportMissingImports]
    import pandas as pd
    import shapely  # pyright: ignore[reportMissingImports]
    from spatialdata import SpatialData  # pyright: ignore[reportMissingImports]
    from spatialdata.models import ShapesModel, TableModel  # pyright: ignore[reportMissingImports]

    width = int(tiles.tile_spec["width"] * tiles.tile_spec["base_downsample"])
    height = int(tiles.tile_spec["height"] * tiles.tile_spec["base_downsample"])
    x, y = tiles.corners_px_N2.T
    squares = shapely.box(x, y, x + width, y + height)
    pieces = _pieces(outlines)
    tissue = _piece_of(squares, pieces) if pieces else np.zeros(len(tiles), np.int64)
    frame = gpd.GeoDataFrame({**tiles.columns, "tissue_id": tissue, "geometry": squares})
    shapes = {TILES: ShapesModel.parse(frame)}
    if pieces:
        ids = np.arange(len(pieces))
        shapes[TISSUES] = ShapesModel.parse(gpd.GeoDataFrame({"tissue_id": ids, "geometry": pieces}))
    columns = {name: values for name, values in tiles.columns.items() if name not in ("x", "y")}
    obs = pd.DataFrame(columns, index=[str(number) for number in range(len(tiles))])
    obs[REGION] = pd.Categorical([TILES] * len(tiles))
    table = anndata.AnnData(
        np.asarray(features_ND, np.float32),
        obs=obs,
        obsm={"spatial": tiles.corners_px_N2},
        uns={"medclip": dict(tiles.medclip)},
    )
    table = TableModel.parse(table, region=TILES, region_key=REGION, instance_key=INSTANCE)
    assert table.uns["spatialdata_attrs"] == SPATIALDATA_ATTRS
    spec = {**tiles.tile_spec, "tissue_name": TISSUES if pieces else None}
    attrs = {"tile_spec": {TILES: spec}, "slide_properties": dict(tiles.slide_properties)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zarr's coming defaults
        SpatialData(shapes=shapes, tables={feature_key(tiles): table}, attrs=attrs).write(folder)


def feature_key(tiles: TileTable) -> str:
    """Return the name of the table of vectors: that of the pack, and of the tiles."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", str(tiles.medclip["pack_name"]))
    return f"{name}_{TILES}"


def _pieces(outlines: Path) -> list[Any]:
    """Read the outlines of tissue, a polygon for each piece."""
    import shapely  # pyright: ignore[reportMissingImports]

    if not outlines.is_file():
        return []
    features = json.loads(outlines.read_text(encoding="utf-8"))["features"]
    shapes = [shapely.make_valid(shapely.geometry.shape(feature["geometry"])) for feature in features]
    parts = [part for shape in shapes for part in shapely.get_parts(shape)]
    return [part for part in parts if part.geom_type == "Polygon"]


def _piece_of(squares: NDArray[Any], pieces: list[Any]) -> NDArray[np.int64]:
    """Return which piece of tissue each square has most of, the nearest where it has none; int64 [N]."""
    import shapely  # pyright: ignore[reportMissingImports]

    tree = shapely.STRtree(pieces)
    nearest = tree.nearest(shapely.centroid(squares)).astype(np.int64)
    square, piece = tree.query(squares, predicate="intersects")
    shared = shapely.area(shapely.intersection(squares[square], np.array(pieces, dtype=object)[piece]))
    order = np.lexsort((piece, -shared, square))
    firsts = order[np.unique(square[order], return_index=True)[1]]
    nearest[square[firsts]] = piece[firsts]
    return nearest
