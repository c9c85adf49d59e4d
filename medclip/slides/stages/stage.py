"""The three stages: what each takes from those before it, and what it leaves of a slide."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.embeddings.embedded_unit import EmbeddingPack
from medclip.errors import Problem, Reason
from medclip.files.output import write_file
from medclip.imaging.slides.outlines import to_geojson
from medclip.imaging.slides.patch_grid import PatchGrid
from medclip.imaging.slides.stain import StainMethod
from medclip.imaging.slides.tissue.find import TissueMask
from medclip.settings import Settings
from medclip.slides.slide_features import SlideFeatures, write_slide_features
from medclip.slides.slide_store import features_path
from medclip.slides.stages.options import GridOptions
from medclip.slides.stages.reading import BLOCK_SIDE, SeenSlide
from medclip.slides.stages.stage_files import (
    PATCHES,
    TISSUE,
    count_flags,
    grid_geojson,
    read_grid,
    read_tissue,
    write_grid,
    write_tissue,
)
from medclip.slides.stages.unfinished import UnfinishedSlide
from medclip.slides.stages.work import Slide, Vectors

UNFINISHED = "unfinished"
_OF_TISSUE = ("tissue_share", "tissue_mm2", "pen_share", "notes")


@dataclass(frozen=True)
class _Base:
    folder: Path
    """Output folder of all stages."""
    options: GridOptions
    settings: Settings

    @property
    def stain(self) -> StainMethod | None:
        """Recolour nothing."""
        return None

    @property
    def white(self) -> bool:
        """Ask for no value of bare glass."""
        return False

    def known(self, slide: Slide) -> tuple[TissueMask | None, PatchGrid | bool]:
        """Return what earlier stages left of a slide: its mask, and its grid, or whether one is to be laid."""
        return read_tissue(self.folder / TISSUE / f"{slide.key}.png", self._identity(slide, grid=False)), True

    def begin(self, slide: Slide) -> Vectors | None:
        """Compute no vectors."""
        return None

    def _identity(self, slide: Slide, *, grid: bool) -> dict[str, Any]:
        """Return what makes two readings of a slide the same: its bytes, the options, and who says its scale."""
        options = self.options.digest if grid else self.options.tissue_digest
        stated = slide.source.mpp_um or self.settings.policy.mpp_um
        return {"slide": slide.sha256, "options": options, "stated_mpp_um": stated}


@dataclass(frozen=True)
class TissueStage(_Base):
    """Find tissue: a mask, and its outlines for QuPath."""

    geojson: bool = True

    def known(self, slide: Slide) -> tuple[TissueMask | None, PatchGrid | bool]:
        """Take nothing from other stages."""
        return None, False

    def finish(self, slide: Slide) -> None:
        """Write the mask."""
        assert slide.seen is not None
        assert slide.seen.tissue is not None
        tissue, base = slide.seen.tissue, self.folder / TISSUE / slide.key
        if self.geojson:
            outlines = to_geojson(tissue, slide.seen.reader)
            write_file(base.with_suffix(".geojson"), json.dumps(outlines, separators=(",", ":")))
        write_tissue(base.with_suffix(".png"), tissue, self._identity(slide, grid=False))

    def forget(self, slide: Slide) -> None:
        """Remove the mask of a slide that has none any more."""
        _unlink(self.folder / TISSUE, slide.key, (".png", ".geojson"))


@dataclass(frozen=True)
class PatchesStage(_Base):
    """Lay the grid: places, and squares for QuPath."""

    geojson: bool = True

    def finish(self, slide: Slide) -> None:
        """Write the grid."""
        seen, grid = _with_grid(slide)
        reader, base = seen.reader, self.folder / PATCHES / slide.key
        if self.geojson:
            squares = grid_geojson(grid, reader)
            write_file(base.with_suffix(".geojson"), json.dumps(squares, separators=(",", ":")))
        facts = {name: slide.rows.get(name) for name in _OF_TISSUE}
        write_grid(base.with_suffix(".h5"), grid, reader, slide.key, self._identity(slide, grid=True), facts)

    def forget(self, slide: Slide) -> None:
        """Remove the grid of a slide that has none any more."""
        _unlink(self.folder / PATCHES, slide.key, (".h5", ".geojson"))


@dataclass(frozen=True)
class EmbedStage(_Base):
    """Compute the vectors of patches."""

    pack: EmbeddingPack | None = None
    model: Any = None
    """Loaded."""
    dtype: str = "float32"
    measures: tuple[str, ...] = field(default=())
    """Names of what is measured of each patch."""
    measure: Any = None
    """Measures it; see `reading.Measure`."""
    normalise: StainMethod | None = None
    """How patches are recoloured before they are encoded."""

    @property
    def stain(self) -> StainMethod | None:
        """Recolour patches before they are encoded."""
        return self.normalise

    @property
    def white(self) -> bool:
        """Ask for the value of bare glass where patches are measured."""
        return self.measure is not None

    def known(self, slide: Slide) -> tuple[TissueMask | None, PatchGrid | bool]:
        """Take the grid that an earlier stage laid, or the mask that one left."""
        stored_grid = read_grid(self.folder / PATCHES / f"{slide.key}.h5", self._identity(slide, grid=True))
        if stored_grid is None:
            return super().known(slide)
        grid, facts = stored_grid
        slide.rows |= {name: value for name, value in facts.items() if value is not None}
        return None, grid

    def begin(self, slide: Slide) -> Vectors:
        """Begin the vectors of a slide, or go on with them."""
        assert self.pack is not None
        _, grid = _with_grid(slide)
        identity = {
            **self._identity(slide, grid=True),
            "pack": self.pack.to_dict(),
            "block_side": BLOCK_SIDE,
            "measures": list(self.measures),
            "batch_size": self.model.batch_size,
        }
        unfinished = UnfinishedSlide(
            self.folder / UNFINISHED / slide.key, identity, len(grid), self.model.dim, len(self.measures)
        )
        return Vectors(unfinished, partial(self._job, slide))

    def _job(self, slide: Slide, rows: NDArray[np.int64]) -> tuple[Any, ...]:
        """Return the arguments of `read_block` for some patches."""
        seen, grid = _with_grid(slide)
        spec, preprocess = seen.reader.spec, self.model.preprocess
        return (
            spec,
            grid.corners_um_N2[rows],
            grid.size_px,
            grid.mpp_um,
            grid.effective_mpp_um,
            preprocess,
            self.measure,
            seen.stain,
            seen.white,
        )

    def finish(self, slide: Slide) -> None:
        """Write the vectors of a slide whose blocks are complete."""
        (seen, grid), unfinished = _with_grid(slide), slide.unfinished
        assert unfinished is not None
        assert self.pack is not None
        kept = unfinished.kept
        num_lost = len(grid) - len(kept)
        slide.rows["num_lost"] = num_lost
        if not len(kept):
            slide.item.problem = Problem(
                Reason.CORRUPT, f"none of its {len(grid)} patches can be read: its stored pixels are damaged."
            )
            return
        unfinished.save()
        measures = unfinished.measures()
        quality = {name: measures[:, column] for column, name in enumerate(self.measures)}
        if quality:
            slide.rows |= count_flags(quality)
        write_slide_features(
            features_path(self.folder, slide.key),
            SlideFeatures(
                key=slide.key,
                features_ND=unfinished.vectors(self.dtype),
                corners_um_N2=grid.corners_um_N2[kept],
                coverage_N=grid.coverage[kept],
                size_px=grid.size_px,
                mpp_um=grid.mpp_um,
                effective_mpp_um=grid.effective_mpp_um,
                slide_size_um=seen.reader.size_um,
                pack=self.pack,
                grid=self.options.digest,
                num_lost=num_lost,
                slide_mpp_um=seen.reader.mpp_um,
                quality=quality,
            ),
        )

    def forget(self, slide: Slide) -> None:
        """Remove the vectors of a slide that has none any more."""
        _unlink(features_path(self.folder, slide.key).parent, slide.key, (".h5",))


def _with_grid(slide: Slide) -> tuple[SeenSlide, PatchGrid]:
    assert slide.seen is not None
    assert slide.seen.grid is not None
    return slide.seen, slide.seen.grid


def _unlink(folder: Path, key: str, suffixes: tuple[str, ...]) -> None:
    for suffix in suffixes:
        with suppress(OSError):
            (folder / f"{key}{suffix}").unlink(missing_ok=True)
