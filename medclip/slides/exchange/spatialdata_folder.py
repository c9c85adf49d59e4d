"""Write a slide as a SpatialData folder (.zarr) with the elements that LazySlide's wsidata looks for.

`wsidata.open_wsi("slide.svs", store="KEY.zarr")` opens it beside its slide: shapes `tiles` and, where the tissue stage
left outlines, `tissues`; the table `NAME_tiles` with the vectors; the attributes `tile_spec` and `slide_properties`.
spatialdata does the writing, and holds the vectors of the slide in memory.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.slides.exchange.tile_table import INSTANCE, REGION, SPATIALDATA_ATTRS, TILES, TISSUES, TileTable


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
