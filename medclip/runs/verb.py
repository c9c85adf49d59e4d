"""`medclip.runs.merge` for type checkers: what it does is in `medclip.api.merge`, above this room."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from medclip.embeddings.open_embeddings import Embeddings
    from medclip.progress import Progress
    from medclip.runs.score_run import ScoreRun
    from medclip.settings import Settings


def merge(
    shards: Sequence[str | Path],
    out: str | Path,
    *,
    workers: int | None = None,
    memory: int | str | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> ScoreRun | Embeddings:
    """Put the shards of a run together, as `medclip.api.merge.merge` says.

    The name is looked up when it is called, as `medclip.lazy` does: it stands in a room above this one.
    """
    return import_module("medclip.api.merge").merge(
        shards, out, workers=workers, memory=memory, settings=settings, progress=progress
    )
