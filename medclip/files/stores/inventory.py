"""What a PACS or a store says that it has, before anything of it is fetched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Inventory:
    """Counts of a listing. Nothing in it names a study."""

    num_files: int
    """As the source counts them: a PACS counts reports and other objects without an image, too."""
    num_studies: int | None = None
    """None where only the files will tell."""
    num_bytes: int | None = None
    """None where the source does not say."""
    modalities: Mapping[str, int] = field(default_factory=dict)
    """Studies by the DICOM modalities in them, the most frequent first; a study with two counts under each."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)
