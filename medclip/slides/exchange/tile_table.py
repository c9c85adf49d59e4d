"""The patches of a slide as LazySlide's data structure has tiles: places in pixels of the finest resolution, and sizes.

wsidata 0.12 (https://github.com/rendeirolab/wsidata) is the model: tiles are named `tiles`, each has `tile_id`, `x` and
`y` (upper left corner) and `tissue_id`; `tile_spec` says how they are cut, `slide_properties` of what, and a table of
features is bound to its tiles by `spatialdata_attrs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.slides.store.slide_features import SlideFeatures
from medclip.slides.store.slide_store import SlideStore

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
