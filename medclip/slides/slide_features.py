"""The vectors of one slide's patches, and the HDF5 file that holds them: equal values, equal bytes.

| in the file | content |
|---|---|
| `features` | float32 or float16 [N, D], in chunks of whole rows, not compressed |
| `coords` | int64 [N, 2]: x, y of each patch's corner in pixels of the finest resolution, as in TRIDENT's files |
| `places_um` | float64 [N, 2]: top and left in µm from the slide's corner: what `SlideReader.read` takes |
| `coverage` | float32 [N]: share of the patch that is tissue |
| `quality/NAME` | float32 [N]: what was measured of each patch's pixels |
| attributes | everything else by name; the pack as `pack_name`, `pack_digest`, ... |

Nothing in it names a patient or a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.embeddings.embedded_unit import DTYPES, EmbeddingPack, from_dict
from medclip.errors import MedclipError, Reason
from medclip.files.output import new_file
from medclip.result import Result

FORMAT = 1
"""Raised when the layout changes."""
_CHUNK_BYTES = 1 << 20
"""What is read at least where one row is wanted; HDF5 keeps one such chunk in memory by default."""
_NAME = "medclip_slide_features"


@dataclass(frozen=True, eq=False, repr=False)
class SlideFeatures(Result):
    """The patches of one slide as vectors, in reading order."""

    key: str
    """Names the slide, and its file: a keyed hash."""
    features_ND: NDArray[np.floating[Any]]
    """float32 or float16 [N, D] of unit norm."""
    corners_um_N2: NDArray[np.float64]
    """[N, 2]: top and left of each patch in µm."""
    coverage_N: NDArray[np.float32]
    """[N]: share of each patch that is tissue."""
    size_px: int
    """Rows and columns of a patch."""
    mpp_um: float
    """The µm/px that was asked for: what `SlideReader.read` wants to be told."""
    effective_mpp_um: tuple[float, float]
    """Row and column µm/px of the pixels."""
    slide_size_um: tuple[float, float]
    """Height and width of the slide."""
    pack: EmbeddingPack
    """What computed the vectors."""
    grid: str
    """Hash of the options of tissue and grid: equal hash, equal places on equal slides."""
    num_lost: int = 0
    """Patches of the grid whose stored pixels are damaged; they have no row."""
    slide_mpp_um: tuple[float, float] | None = None
    """Row and column µm/px of the finest resolution; None: that of the patches."""
    quality: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """[N] each, by name: what was measured of the patches' pixels, such as `sharpness`."""

    def __post_init__(self) -> None:
        """Check that all arrays tell of the same patches.

        Raises:
            MedclipError: WRONG_USE.
        """
        num = len(self.features_ND)
        shapes = [self.corners_um_N2.shape == (num, 2), self.coverage_N.shape == (num,)]
        shapes += [values.shape == (num,) for values in self.quality.values()]
        if self.features_ND.ndim != 2 or str(self.features_ND.dtype) not in DTYPES or not all(shapes):
            raise MedclipError(
                Reason.WRONG_USE,
                "the features of a slide are a float32 or float16 table with a row for each patch, and places, "
                "coverage and quality have as many rows.",
            )

    def __len__(self) -> int:
        return len(self.features_ND)

    @property
    def dim(self) -> int:
        """D, the length of a vector."""
        return self.features_ND.shape[1]

    @property
    def coords_N2(self) -> NDArray[np.int64]:
        """int64 [N, 2]: x and y of each patch's corner in pixels of the slide's finest resolution."""
        return level0_coords(self.corners_um_N2, self.slide_mpp_um or self.effective_mpp_um)

    def _facts(self) -> dict[str, object]:
        return {
            "slide": self.key,
            "patches": f"{len(self):,}, {self.num_lost:,} lost",
            "size": f"{self.size_px} pixels at {self.mpp_um:g} µm/px",
            "vectors": f"{self.dim} numbers, {self.features_ND.dtype}",
            "model": f"{self.pack.name} {self.pack.version}",
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [
            {
                "top_um": float(self.corners_um_N2[row, 0]),
                "left_um": float(self.corners_um_N2[row, 1]),
                "coverage": float(self.coverage_N[row]),
                **{name: float(values[row]) for name, values in self.quality.items()},
            }
            for row in range(len(self) if most is None else min(most, len(self)))
        ]


def write_slide_features(path: Path | str, features: SlideFeatures) -> None:
    """Write the file of one slide, whole or not at all; equal values give equal bytes.

    Vectors may be a memory map: they are written some rows at a time.

    Args:
        path: The file; one that is there is replaced.
        features: Features that the file is to hold.

    Raises:
        MedclipError: MISSING_CODEC without h5py.
    """
    h5py = hdf5()
    num, dim = features.features_ND.shape
    row_bytes = max(1, dim * features.features_ND.dtype.itemsize)
    chunk_rows = max(1, min(_CHUNK_BYTES // row_bytes, max(num, 1)))
    # Without times of creation, and with the oldest layout, whose bytes depend on nothing but what is written.
    with new_file(Path(path)) as draft, h5py.File(draft, "w", libver=("earliest", "v110")) as file:
        vectors = file.create_dataset(
            "features", (num, dim), features.features_ND.dtype, chunks=(chunk_rows, dim) if num else None
        )
        for start in range(0, num, chunk_rows):
            vectors[start : start + chunk_rows] = features.features_ND[start : start + chunk_rows]
        coords = file.create_dataset("coords", data=features.coords_N2)
        file.create_dataset("places_um", data=np.asarray(features.corners_um_N2, np.float64))
        file.create_dataset("coverage", data=np.asarray(features.coverage_N, np.float32))
        for name in sorted(features.quality):
            file.create_dataset(f"quality/{name}", data=np.asarray(features.quality[name], np.float32))
        for name, value in _attributes(features).items():
            file.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else value
        finest = features.slide_mpp_um or features.effective_mpp_um
        for name, value in attributes_of_coords(
            features.key, features.size_px, finest, features.effective_mpp_um, features.slide_size_um
        ).items():
            coords.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else value


def read_feature_blocks(path: Path | str, rows: int = 8192) -> Iterator[NDArray[np.floating[Any]]]:
    """Yield the vectors of one slide some rows at a time: memory is bounded however many there are.

    Args:
        path: Path of the file, as in `read_slide_features`.
        rows: Largest number of rows in a block.

    Yields:
        float32 or float16 [B, D].
    """
    with _opened(Path(path)) as file:
        vectors = file["features"]
        for start in range(0, len(vectors), rows):
            yield vectors[start : start + rows]


def read_slide_features(path: Path | str, *, vectors: bool = True) -> SlideFeatures:
    """Read the file of one slide.

    Args:
        path: The file.
        vectors: Whether vectors are read; where not, they are float32 or float16 [N, 0].

    Raises:
        MedclipError: MISSING_FILE; CORRUPT for what is no such file, or is damaged; OUTPUT_IN_USE for the format of
            another version; MISSING_CODEC without h5py.
    """
    with _opened(Path(path)) as file:
        attributes = {name: _plain(value) for name, value in file.attrs.items()}
        if attributes.get("kind") != _NAME:
            raise ValueError("no such file")
        if attributes["format"] != FORMAT:
            raise MedclipError(
                Reason.OUTPUT_IN_USE,
                f"these slide features have format {attributes['format']}, this medclip reads {FORMAT}.",
                where=path,
                hint="Embed the slides again, or use the version of medclip that wrote them.",
            )
        pair = {name: (float(value[0]), float(value[1])) for name, value in attributes.items() if name in _PAIRS}
        quality = {str(name): values[()] for name, values in file["quality"].items()} if "quality" in file else {}
        return SlideFeatures(
            key=attributes["key"],
            features_ND=file["features"][()] if vectors else file["features"][:, :0],
            corners_um_N2=file["places_um"][()],
            coverage_N=file["coverage"][()],
            size_px=int(attributes["size_px"]),
            mpp_um=float(attributes["mpp_um"]),
            effective_mpp_um=pair["effective_mpp_um"],
            slide_size_um=pair["slide_size_um"],
            pack=from_dict({name.removeprefix(_PACK): v for name, v in attributes.items() if name.startswith(_PACK)}),
            grid=attributes["grid"],
            num_lost=int(attributes["num_lost"]),
            slide_mpp_um=pair.get("slide_mpp_um"),
            quality=quality,
        )


_PAIRS = ("effective_mpp_um", "slide_size_um", "slide_mpp_um")
_PACK = "pack_"


def _attributes(features: SlideFeatures) -> dict[str, Any]:
    return {
        "kind": _NAME,
        "format": FORMAT,
        "key": features.key,
        "size_px": features.size_px,
        "mpp_um": features.mpp_um,
        **{name: list(value) for name in _PAIRS if (value := getattr(features, name)) is not None},
        **{f"{_PACK}{name}": value for name, value in features.pack.to_dict().items()},
        "grid": features.grid,
        "num_lost": features.num_lost,
    }


def level0_coords(corners_um_N2: NDArray[np.float64], slide_mpp_um: tuple[float, float]) -> NDArray[np.int64]:
    """Return x and y of corners in pixels of the finest resolution, int64 [N, 2], from top and left in µm."""
    rows, columns = slide_mpp_um
    return np.rint(corners_um_N2[:, ::-1] / (columns, rows)).astype(np.int64)


def attributes_of_coords(
    key: str,
    size_px: int,
    slide_mpp_um: tuple[float, float],
    effective_mpp_um: tuple[float, float],
    slide_size_um: tuple[float, float],
    overlap_px: int | None = None,
) -> dict[str, Any]:
    """Return what TRIDENT's readers ask of `coords`; a scale is named there by the magnification that is near it."""
    finest, effective = sum(slide_mpp_um) / 2, sum(effective_mpp_um) / 2
    values = {
        "patch_size": size_px,
        "patch_size_level0": round(size_px * effective / finest),
        "level0_magnification": round(10 / finest, 2),
        "target_magnification": round(10 / effective, 2),
        "level0_width": round(slide_size_um[1] / slide_mpp_um[1]),
        "level0_height": round(slide_size_um[0] / slide_mpp_um[0]),
        "name": key,
    }
    return values if overlap_px is None else {**values, "overlap": overlap_px}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file, and turn what h5py says of a bad one into a sentence."""
    h5py = hdf5()
    if not path.is_file():
        raise MedclipError(Reason.MISSING_FILE, "there is no file of slide features here.", where=path)
    try:
        with h5py.File(path, "r") as file:
            _check_own(file, path.stat().st_size)
            yield file
    except (OSError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as e:
        raise MedclipError(
            Reason.CORRUPT,
            "this is no file of slide features, or it is damaged.",
            where=path,
            hint="Remove it and run the same medclip slides embed again.",
        ) from e


def _check_own(file: Any, size: int) -> None:
    """Refuse a file that points outside itself, or states more than it holds; medclip writes neither.

    HDF5 has links to other files, data sets that are rows of bytes in other files, and filters that unpack.

    Raises:
        ValueError: It does.
    """
    h5py = hdf5()
    parts = dict(_parts(file))
    for name, group in [(name, part) for name, part in parts.items() if isinstance(part, h5py.Group)]:
        del parts[name]
        parts |= {f"{name}/{inner}": part for inner, part in _parts(group)}
    for name, part in parts.items():
        if isinstance(part, h5py.Group) or part.external or part.is_virtual or part.dtype.hasobject:
            raise ValueError(f"{name} lies elsewhere, or is no array of numbers")
    if sum(part.nbytes for part in parts.values()) > size:
        raise ValueError("it states more than it holds")


def _parts(group: Any) -> Iterator[tuple[str, Any]]:
    for name in group:
        if not isinstance(group.get(name, getlink=True), hdf5().HardLink):
            raise ValueError(f"{name} is a link")
        yield name, group[name]


def _plain(value: Any) -> Any:
    """Return an attribute as Python's own value."""
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


def hdf5() -> Any:
    """Return the module h5py.

    Raises:
        MedclipError: MISSING_CODEC where it is not installed.
    """
    try:
        import h5py
    except ImportError as e:
        raise MedclipError(
            Reason.MISSING_CODEC, "slide features need h5py.", hint="Run: pip install 'medclip-imaging[wsi]'"
        ) from e
    return h5py
