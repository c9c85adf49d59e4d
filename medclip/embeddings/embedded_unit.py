"""One unit of a run with its vectors, and the pack that computed them. No torch here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Level = Literal["views", "units", "studies"]
"""A view is one image of a unit, a unit what is read together (a file, or the slices of a series)."""
LEVELS: tuple[Level, ...] = ("views", "units", "studies")
DTYPES = ("float32", "float16")
"""float16 halves the room; results from it differ from those of the files in the third digit or behind."""


@dataclass(frozen=True)
class EmbeddingPack:
    """The pack that vectors are of, as the store names it: by hashes, not by its place on a disk."""

    name: str
    version: str
    digest: str
    """sha256 of the pack's manifest, which holds the hash of every file."""
    image_tower: str
    """Hash of the image tower's weights and architecture: equal in a pack that was adapted without changing it."""
    preprocessing: str
    """`Preprocess.digest()`: equal digest, equal pixels."""

    def to_dict(self) -> dict[str, str]:
        """Return plain data for JSON."""
        return asdict(self)

    def answers_for(self, digest: str, *, image_tower: str = "", preprocessing: str = "") -> bool:
        """Return whether vectors of this pack are those of another.

        Args:
            digest: sha256 of the other's manifest (`medclip.models.packs.manifest.pack_digest`).
            image_tower: Hash of its image tower; a pack that was adapted without changing the tower has its base's.
            preprocessing: Digest of its preprocessing.
        """
        ours = (self.image_tower, self.preprocessing)
        return digest == self.digest or (bool(image_tower) and (image_tower, preprocessing) == ours)


@dataclass(frozen=True, eq=False)
class EmbeddedUnit:
    """What is read together, its vectors, and what is asked of it before it is scored.

    Rows are numbers of files.parquet. `features` is empty for a unit that failed after its modality was known: such a
    unit is in no table of vectors, but another question may have passed it over before it could fail.
    """

    row: int
    """Of the unit's first file."""
    study: str
    """Study, as in files.parquet."""
    grouped: str
    """Study before files of two modalities split it; mostly the same."""
    patient: str | None
    modality: str
    kind: str
    """image, volume, cine, signal or slide."""
    sha256: str
    """Of the file's bytes; of several files the hash of their hashes in reading order."""
    features: NDArray[np.float32]
    """float32 [V, D] of unit norm: the model's own, one for each view."""
    laterality: str | None = None
    view: str | None = None
    """Position, such as MLO or PA."""
    body_part: str = ""
    """What the header states, as far as it is made of terms of the standard; see `medclip.runs.units.unit_rows`."""
    headers: str | None = None
    """JSON of the allow-listed header values."""
    burned_in: bool = False
    """Text is burned into the pixels: no small image of it is shown."""
    stranger: bool = False
    """A radiograph whose header states no body part, and that is unlike those the model has seen."""
    instead_of: int | None = None
    """Row of the file that it is a copy of, where that one could not be read."""
    look: bytes = b""
    """What its image is known again by: `medclip.imaging.perceptual_hash.Look`; empty where that is not known."""


FACTS = tuple(field.name for field in fields(EmbeddedUnit) if field.name != "features")
"""What is known of a unit besides its vectors."""


def from_dict(values: dict[str, Any]) -> EmbeddingPack:
    """Read a pack's names and hashes back from JSON."""
    return EmbeddingPack(**{field.name: str(values[field.name]) for field in fields(EmbeddingPack)})
