"""What the stage `patches` leaves of a slide: places as HDF5 that TRIDENT's readers take, and squares for QuPath."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from medclip.files.output import new_file
from medclip.imaging.slides.patch_grid import PatchGrid
from medclip.imaging.slides.readers.pyramid import SlideReader
from medclip.slides.store.slide_features import attributes_of_coords, hdf5, level0_coords

PATCHES = "patches"


def write_grid(
    path: Path,
    grid: PatchGrid,
    reader: SlideReader,
    key: str,
    identity: Mapping[str, Any],
    facts: Mapping[str, float | str | None],
) -> None:
    """Write the places of a grid.

    Args:
        path: The HDF5 file.
        grid: The grid.
        reader: Reader of the slide.
        key: The slide's key.
        identity: Identity of the grid: hashes of the slide and of the options.
        facts: Facts on the tissue that the next stage is to know.

    Raises:
        MedclipError: MISSING_CODEC without h5py; as `medclip.files.output.disk_errors`.
    """
    mpp = reader.mpp_um
    assert mpp is not None  # the grid could not have been made
    corners = grid.corners_um_N2
    with new_file(path) as draft, hdf5().File(draft, "w", libver=("earliest", "v110")) as file:
        coords = file.create_dataset("coords", data=level0_coords(corners, mpp))
        file.create_dataset("kept", data=grid.kept)
        file.create_dataset("places_um", data=corners)
        file.create_dataset("coverage", data=grid.coverage)
        if grid.piece is not None:
            file.create_dataset("piece", data=grid.piece)
            file.create_dataset("origins_um", data=grid.origins_um)
        for name, value in attributes_of_coords(
            key, grid.size_px, mpp, grid.effective_mpp_um, reader.size_um, grid.size_px - _step(grid)
        ).items():
            coords.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else value
        file.attrs["medclip"] = np.bytes_(json.dumps(dict(identity), sort_keys=True).encode())
        file.attrs["tissue"] = np.bytes_(json.dumps(dict(facts), sort_keys=True).encode())
        file.attrs["size_px"] = grid.size_px
        file.attrs["mpp_um"] = grid.mpp_um
        file.attrs["effective_mpp_um"] = list(grid.effective_mpp_um)
        file.attrs["stride_um"] = list(grid.stride_um)
        file.attrs["num_places"] = grid.candidates


def read_grid(path: Path, identity: Mapping[str, Any]) -> tuple[PatchGrid, dict[str, Any]] | None:
    """Read a grid back, and what is known of its tissue.

    Returns:
        None where there is none, it cannot be read, or it is of another slide or other options.
    """
    if not path.is_file():
        return None
    with suppress(OSError, ValueError, KeyError, TypeError, RuntimeError), hdf5().File(path, "r") as file:
        facts = json.loads(file.attrs["medclip"])
        if facts == json.loads(json.dumps(dict(identity))):
            effective, stride = ([float(v) for v in file.attrs[name]] for name in ("effective_mpp_um", "stride_um"))
            pieces = (file["piece"][()], file["origins_um"][()]) if "piece" in file else ()
            grid = PatchGrid(
                int(file.attrs["size_px"]),
                float(file.attrs["mpp_um"]),
                (effective[0], effective[1]),
                (stride[0], stride[1]),
                file["kept"][()],
                file["coverage"][()],
                int(file.attrs["num_places"]),
                *pieces,
            )
            return grid, json.loads(file.attrs["tissue"])
    return None


def grid_geojson(grid: PatchGrid, reader: SlideReader) -> dict[str, Any]:
    """Return the squares of a grid as a FeatureCollection of QuPath's tiles, in pixels of the finest resolution."""
    mpp = reader.mpp_um
    assert mpp is not None
    origin_y, origin_x = reader.facts.origin_px
    side_y, side_x = (
        grid.size_px * effective / finest for effective, finest in zip(grid.effective_mpp_um, mpp, strict=True)
    )
    features = []
    for patch in grid:
        top, left = patch.top_um / mpp[0] - origin_y, patch.left_um / mpp[1] - origin_x
        ring = [[left, top], [left + side_x, top], [left + side_x, top + side_y], [left, top + side_y], [left, top]]
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [[[round(v, 2) for v in point] for point in ring]]},
                "properties": {
                    "objectType": "tile",
                    "name": f"{patch.row} {patch.column}",
                    "measurements": {"coverage": round(patch.coverage, 4)},
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}


def _step(grid: PatchGrid) -> int:
    """Return how many pixels lie between the corners of neighbours."""
    return round(grid.stride_um[0] / grid.effective_mpp_um[0])
