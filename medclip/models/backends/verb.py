"""`medclip.models.calibrate` for type checkers: what it does is in `medclip.api.calibrate`, above this room."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medclip.models.packs.pack import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from medclip.models.backends.calibration import Calibration
    from medclip.models.model import Model
    from medclip.progress import Progress
    from medclip.settings import Settings
    from medclip.text.vocabulary.own_words import Asked


def calibrate(
    model: str | Path | Model = DEFAULT,
    *,
    images: Any,
    out: str | Path | None = None,
    task: str | Sequence[str] = (),
    prompt: Asked = (),
    modality: str | None = None,
    num_images: int = 128,
    backend: str | Sequence[str] = (),
    batch_size: int | None = None,
    workers: int | None = None,
    memory: int | str | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Choose what computes a pack's images, as `medclip.api.calibrate.calibrate` says.

    The name is looked up when it is called, as `medclip.lazy` does: it stands in a room above this one.
    """
    return import_module("medclip.api.calibrate").calibrate(
        model,
        images=images,
        out=out,
        task=task,
        prompt=prompt,
        modality=modality,
        num_images=num_images,
        backend=backend,
        batch_size=batch_size,
        workers=workers,
        memory=memory,
        settings=settings,
        progress=progress,
    )
