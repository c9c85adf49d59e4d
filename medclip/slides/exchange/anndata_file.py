"""Write a slide as an AnnData file (.h5ad), after the published layout of such files.

https://anndata.readthedocs.io/en/stable/fileformat-prose.html: each group and data set says by `encoding-type` and
`encoding-version` what it is. It is written with h5py: vectors go from file to file some rows at a time, whatever
their number, and anndata itself, which asks for a pandas below 3, is needed by nobody but the one who reads. Equal
values give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.files.output import new_file
from medclip.slides.exchange.tile_table import REGION, SPATIALDATA_ATTRS, TILES, TileTable
from medclip.slides.store.slide_features import hdf5

_CHUNK_BYTES = 1 << 20


def write_anndata(path: Path, tiles: TileTable, dim: int, blocks: Iterable[NDArray[np.floating[Any]]]) -> None:
    """Write one slide.

    Args:
        path: The file.
        tiles: N tiles.
        dim: D, the length of a vector.
        blocks: Vectors of the tiles, float [B, D] each, N rows in all; kept as float32, which all readers take.

    Raises:
        MedclipError: MISSING_CODEC without h5py; as `medclip.files.output.disk_errors`.
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
