"""What a model is shown of a sample: its views at the model's size, the clips of a volume or loop, or an ECG.

Scoring, embedding and adaptation all ask here, so that a model is shown the same everywhere. No torch here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medclip.errors import MedclipError, Reason

if TYPE_CHECKING:
    from medclip.models.inputs.preprocess import Images, Preprocess
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
