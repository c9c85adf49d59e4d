"""The verb `doctor`: what this installation can and cannot do."""

from __future__ import annotations

from medclip.inspecting.doctor import Diagnosis, diagnose
from medclip.settings import Settings


def doctor(*, settings: Settings | None = None) -> Diagnosis:
    """Check Python, packages, decoders, places on disk and the built-in model pack, and say how to fix what is wrong.

    Nothing is changed, and no network is needed.

    Args:
        settings: Where the identity key lives; the defaults where None.

    Returns:
        The checks; `.ok` says whether none failed.
    """
    return diagnose(settings)
