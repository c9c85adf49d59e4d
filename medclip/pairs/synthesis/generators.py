"""Generators of synthetic samples: what each is handed, and what it answers. One row of `GENERATORS` each.

A generator takes a pair of the tail and gives an image with its words, or says in a word why it has none. A diffusion
model of the user's, from a local folder, would be one more file and one more row; there is none yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.random import Generator as Draws
    from numpy.typing import NDArray

    from medclip.text.captions.record import CaptionRecord


class GeneratorSettings(BaseModel):
    """What a generator is asked; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, eq=False)
class Source:
    """A real pair that something can be made of; its image is read when it is needed."""

    key: str
    patient: str
    """Keyed hash; "" where nobody is named."""
    sha256: str
    """Of its file."""
    origin: str
    """Name of the set it came from."""
    record: CaptionRecord
    read_image: Callable[[], NDArray[np.uint8]]
    """Reads uint8 [H, W, 3]."""

    @property
    def modality(self) -> str:
        """Return the name of the modality; "" where it is not known."""
        return "" if self.record.modality is None else str(self.record.modality)


@dataclass(frozen=True, eq=False)
class Synthetic:
    """What a generator made of a pair."""

    image: NDArray[np.uint8]
    """uint8 [H, W, 3]."""
    record: CaptionRecord
    into: str
    """Key of the pair whose image it is a change of: the sample is of its patient."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """All that was drawn, as plain values of JSON."""


Generate = Callable[[Source, "Draws"], Synthetic | str]
"""Makes a sample of a pair of the tail, all of its chance out of one generator; a word why there is none."""


@dataclass(frozen=True)
class Generator:
    """One row of the table."""

    about: str
    """What it does, in a few words."""
    settings: str
    """module:class of its settings, a `GeneratorSettings`."""
    target: str
    """module:function, (settings, pairs of the split that may be used, folder of the steps) -> `Generate`."""


Prepare = Callable[[Any, "Sequence[Source]", "Path"], Generate]

GENERATORS: dict[str, Generator] = {
    "change": Generator(
        "the same image, bent, turned a little, shaded and noisier, with synonyms in its words",
        "medclip.pairs.synthesis.change:ChangeSettings",
        "medclip.pairs.synthesis.change:prepare",
    ),
    "paste": Generator(
        "the segmented lesion of the pair, in an image of another patient, with a sentence that says so",
        "medclip.pairs.synthesis.paste:PasteSettings",
        "medclip.pairs.synthesis.paste:prepare",
    ),
}
"""Names, as synthesize.yaml has them."""
