"""The bridge to MONAI: volumes as MetaTensors and back, so that any of its transforms and networks can take them.

MONAI is imported inside the functions: it costs seconds, and reading processes must not load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.imaging.volume.slice_geometry import arrange, natural_plane
from medclip.sample import Volume

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor


def to_monai(volume: Volume) -> MetaTensor:
    """Return a volume as MONAI has it: channel first, with its affine.

    Args:
        volume: 3-D, or 4-D whose frames become channels.

    Returns:
        float32 MetaTensor [channel, slice, row, column]; its affine maps these three axes to RAS millimetres, which
        is what `Orientation`, `Spacing` and the other spatial transforms expect.

    Example:
        >>> import numpy as np
        >>> from medclip.sample import Volume
        >>> volume = Volume(np.zeros((3, 4, 5), np.float32), np.diag([5.0, 1.0, 1.0, 1.0]), "HU", "axial")
        >>> tuple(to_monai(volume).shape)
        (1, 3, 4, 5)
    """
    import torch
    from monai.data.meta_tensor import MetaTensor

    voxels = np.ascontiguousarray(volume.voxels, dtype=np.float32)
    tensor = torch.from_numpy(voxels if voxels.ndim == 4 else voxels[None])
    return MetaTensor(tensor, affine=torch.from_numpy(np.array(volume.affine, dtype=np.float64)))


def from_monai(tensor: Any, *, unit: str, plane: str | None = None) -> Volume:
    """Take a MetaTensor back, whatever a transform did to its axes.

    Args:
        tensor: MetaTensor [channel, x, y, z] with an affine.
        unit: Unit of the values, as in `Volume.unit`; MONAI does not keep it.
        plane: axial, coronal or sagittal; None for that of the clearly thickest axis, else axial.

    Returns:
        A volume laid out to be shown; one channel gives 3-D, several give frames.

    Raises:
        MedclipError: WRONG_USE for a tensor without affine or of another shape.
    """
    affine = getattr(tensor, "affine", None)
    if affine is None or tensor.ndim != 4:
        raise MedclipError(Reason.WRONG_USE, "from_monai takes a MetaTensor [channel, x, y, z] with an affine.")
    voxels = np.asarray(tensor.detach().cpu().numpy())
    where = np.asarray(affine.detach().cpu().numpy(), dtype=np.float64)
    laid_out, affine_out, orientation = arrange(
        voxels[0] if voxels.shape[0] == 1 else voxels, where, plane or natural_plane(where)
    )
    return Volume(np.ascontiguousarray(laid_out), affine_out, unit, orientation)
