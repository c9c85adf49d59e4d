"""What a reading process does with one unit of files for a model: its adapter, then the model's size. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.errors import MedclipError, Problem, Reason

if TYPE_CHECKING:
    from medclip.models.inputs.preprocess import Images, Preprocess
    from medclip.sample import Modality, View
    from medclip.settings import Settings

    Render = Callable[[Sequence[View], str, Preprocess], Images]
    """Turns the images of a unit, with its hash, into what a model is shown. Crosses a pipe."""

UNNAMED = Problem(
    Reason.MODALITY_UNKNOWN,
    "the file does not say of which modality it is; name it: --modality, in Python modality='xray'.",
)


@dataclass(frozen=True, eq=False)
class Pixels:
    """What a reading process gives back for one image."""

    sha256: str
    images: Images | None = None
    """One for each view, at the model's size; None exactly where there is a problem."""
    way: str = ""
    """How it was read: "xray", "ct:volume"."""
    problem: Problem | None = None


def read_pixels(
    path: Path,
    modality: Modality | str | None,
    preprocess: Preprocess,
    settings: Settings,
    render: Render | None = None,
    otherwise: Modality | None = None,
) -> Pixels:
    """Read one image through its modality's adapter and bring it to the model's size. Never imports torch.

    Args:
        path: A file, or the folder of one series.
        modality: Modality whose adapter reads it, or "generic" for the rendering that modalities are inferred from;
            None: the one that the file states, else `otherwise`.
        preprocess: The model's treatment of images; with its crop.
        settings: Limits and policy.
        render: Maker of what the model is shown; None: each image at the model's size.
        otherwise: Modality of a file that states none.
    """
    from medclip.adapters.base import combined_sha256, source_of
    from medclip.adapters.model_images import images_of
    from medclip.adapters.registry import read_unit, slot
    from medclip.files.grouping.units import modality_of
    from medclip.models.inputs.pixels_of import pixels_of

    sha256 = ""
    try:
        source = source_of(path, settings)
        sha256 = combined_sha256(source)
        modality = modality or modality_of(source.first) or otherwise
        if modality is None and source.first.problem is None:
            raise UNNAMED.error(path)
        sample = read_unit(source, modality, preprocess.reading(settings))
        views = pixels_of(sample, preprocess) if render is None else render(images_of(sample), sha256, preprocess)
    except MedclipError as error:
        return Pixels(sha256, problem=error.problem())
    return Pixels(sha256, views, slot(modality, source.kind))
