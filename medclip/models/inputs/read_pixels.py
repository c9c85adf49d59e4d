"""From a unit of files, or a sample, to what a model is shown: views at its size, clips of a volume or loop, or an ECG.

Scoring, embedding and adaptation all ask here, so that a model is shown the same everywhere. No torch here.
"""

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
    from medclip.sample import Sample, View


def pixels_of(sample: Sample | View, preprocess: Preprocess) -> Images:
    """Return the images of a sample at a model's size.

    Args:
        sample: Sample from an adapter; or one view, which a model of volumes or ECGs does not take.
        preprocess: The model's treatment of images, volumes, loops or ECGs.

    Returns:
        What `Preprocess.together` makes of the views; uint8 [V, T, S, S, C] for a model of volumes or loops; int16
        [1, 12, T] in microvolts for one of ECGs.

    Raises:
        MedclipError: NO_PIXELS for a sample without an image; for a model of volumes what `VolumeInput.clips` raises;
            for one of ECGs OTHER_INPUT for what is none, and what `SignalInput.record` raises.
    """
    from medclip.adapters.model_images import images_of
    from medclip.models.inputs.signal_input import no_record
    from medclip.sample import Kind, Sample

    if preprocess.signal is not None:
        if not isinstance(sample, Sample) or sample.signal is None:
            raise no_record(sample.kind if isinstance(sample, Sample) else Kind.IMAGE).error(None)
        return preprocess.signal.record(sample.signal)[None]
    if preprocess.volume is not None and isinstance(sample, Sample):
        from medclip.imaging.volume.voxels import voxels_of

        return preprocess.volume.clips(voxels_of(sample), preprocess.size_px)
    views = images_of(sample) if isinstance(sample, Sample) else (sample,)
    if not views:
        raise MedclipError(Reason.NO_PIXELS, "the adapter found no image in the file.")
    return preprocess.together([preprocess.to_array(view) for view in views])


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
