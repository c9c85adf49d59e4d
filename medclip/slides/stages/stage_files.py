"""What the stages `tissue` and `patches` leave of a slide, and the qualities of patches as numbers that its file keeps.

Of tissue the mask is a 1-bit PNG, one pixel for one pixel of the mask, with its outlines beside it; its text chunk
`medclip` is JSON with µm/px, shares, notes, and the hashes of slide and options by which the next stage knows it. Of
patches places are HDF5 that TRIDENT's readers take, and squares for QuPath.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.files.output import new_file, write_file
from medclip.imaging.slides.patch_grid import PatchGrid
from medclip.imaging.slides.patch_quality import FLAGS, assess_patch
from medclip.imaging.slides.readers.pyramid import SlideReader
from medclip.imaging.slides.stain import White
from medclip.imaging.slides.tissue.find import TissueMask
from medclip.imaging.slides.tissue.glass import WHITE
from medclip.slides.slide_features import attributes_of_coords, hdf5, level0_coords

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

    Raises:
        MedclipError: MISSING_CODEC without h5py.
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


TISSUE = "tissue"
_CHUNK = "medclip"


def write_tissue(path: Path, tissue: TissueMask, identity: Mapping[str, Any]) -> None:
    """Write a mask."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    facts = {
        **identity,
        "mpp_um": list(tissue.mpp_um),
        "pen_share": tissue.pen_fraction,
        "problem": tissue.problem,
        "notes": list(tissue.notes),
    }
    chunk = PngInfo()
    chunk.add_itxt(_CHUNK, json.dumps(facts, sort_keys=True))
    buffer = io.BytesIO()
    Image.fromarray(tissue.mask).save(buffer, format="PNG", pnginfo=chunk)
    write_file(path, buffer.getvalue())


def read_tissue(path: Path, identity: Mapping[str, Any]) -> TissueMask | None:
    """Read a mask back; None where there is none, it cannot be read, or it is of another slide or other options."""
    from PIL import Image

    with suppress(OSError, ValueError, KeyError, TypeError, SyntaxError), Image.open(path) as image:
        facts = json.loads(image.text[_CHUNK])  # pyright: ignore[reportAttributeAccessIssue] (a PNG has it)
        if all(facts.get(name) == value for name, value in identity.items()):
            rows, columns = facts["mpp_um"]
            mask = np.array(image.convert("1"), bool)
            return TissueMask(mask, (rows, columns), facts["pen_share"], facts["problem"], tuple(facts["notes"]))
    return None


MEASURES = ("flags", "sharpness", "stained_share", "pen_share", "dark_share", "dense_share")
"""`flags` is a sum: 1 for the first of `medclip.imaging.slides.patch_quality.FLAGS`, 2 for the second, 4, 8, ..."""
_ARTEFACTS = ("pen", "dark", "fold")


def measure_quality(
    pixels: NDArray[np.uint8], effective_mpp_um: tuple[float, float], white: White = WHITE
) -> tuple[float, ...]:
    """Measure a patch.

    Args:
        pixels: RGB uint8 [H, W, 3].
        effective_mpp_um: Row and column µm/px.
        white: Value of the slide's bare glass.

    Returns:
        One number for each of `MEASURES`; sharpness is NaN for a blank patch.
    """
    quality = assess_patch(pixels, sum(effective_mpp_um) / 2, white=white)
    flags = sum(1 << place for place, flag in enumerate(FLAGS) if flag in quality.flags)
    return (float(flags), *(getattr(quality, name) for name in MEASURES[1:]))


def count_flags(quality: Mapping[str, NDArray[np.float32]]) -> dict[str, int]:
    """Count the patches of a slide that are blurred, and those with an artefact, as columns of `SlideRow`."""
    raised = raised_flags(quality["flags"])
    num_artefacts = sum(any(flag in _ARTEFACTS for flag in flags) for flags in raised)
    return {"num_blurred": sum("blurred" in flags for flags in raised), "num_artefacts": num_artefacts}


def raised_flags(sums_N: NDArray[np.floating[Any]]) -> list[tuple[str, ...]]:
    """Return the flags of each patch by name, from the sums that stand for them.

    Example:
        >>> raised_flags(np.array([0.0, 3.0]))
        [(), ('blank', 'blurred')]
    """
    return [tuple(flag for place, flag in enumerate(FLAGS) if number >> place & 1) for number in sums_N.astype(int)]
