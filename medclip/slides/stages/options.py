"""What decides where the patches of a slide lie, and the hashes by which stages know each other's work."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.output import digest_of
from medclip.imaging.slides.readers import pyramid
from medclip.imaging.slides.readers.backend import PERCENTILES
from medclip.imaging.slides.tissue.find import TissueOptions

NO_LIMIT_BYTES = 1 << 50
"""Slides are read tile by tile: the limit of files that are read whole does not bind them."""
FORMAT = 1
"""Raised when the same options lead to other places: what earlier versions left is not used then."""


@dataclass(frozen=True)
class GridOptions:
    """Tissue and grid: micrometres and pixels, never levels."""

    size_px: int = 256
    """Rows and columns of a patch."""
    mpp_um: float = 0.5
    """Its scale in µm/px."""
    overlap_px: int = 0
    """Rows and columns that neighbours share."""
    min_coverage: float = 0.5
    """Least share of a patch that is tissue, 0-1."""
    by_piece: bool = False
    """Count rows and columns from the corner of each piece of tissue, not from that of the slide."""
    tissue: TissueOptions = field(default_factory=TissueOptions)

    def __post_init__(self) -> None:
        """Refuse what makes no grid.

        Raises:
            MedclipError: WRONG_USE.
        """
        if not 1 <= self.size_px <= 16384 or not 0 <= self.overlap_px < self.size_px:
            raise MedclipError(
                Reason.WRONG_USE,
                f"a patch has 1 to 16,384 rows and shares fewer than it has, not {self.size_px} and {self.overlap_px}.",
            )
        if not 0 <= self.min_coverage <= 1 or not 0 < self.mpp_um < 1000:
            raise MedclipError(
                Reason.WRONG_USE, "a scale is a number of µm/px above 0, and a coverage lies between 0 and 1."
            )

    @property
    def tissue_digest(self) -> str:
        """Hash of what decides the mask."""
        return digest_of([FORMAT, _plain(asdict(self.tissue)), list(PERCENTILES)])

    @property
    def digest(self) -> str:
        """Hash of what decides the places."""
        values = {name: getattr(self, name) for name in ("size_px", "mpp_um", "overlap_px", "min_coverage")}
        pieces = ["by piece"] if self.by_piece else []  # the hash of other grids is what it was before there were any
        return digest_of([self.tissue_digest, values, pyramid.NATIVE, *pieces])

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, without the constants of the tissue finder."""
        return {name: value for name, value in asdict(self).items() if name != "tissue"}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value
