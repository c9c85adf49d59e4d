"""The verb `doctor`: what this installation can and cannot do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medclip.api.groups.reading import Limits
from medclip.api.groups.running import Recipe
from medclip.options import options
from medclip.verbs import verb

if TYPE_CHECKING:
    from medclip.inspecting.doctor import Diagnosis


@options
class DoctorOptions(Limits, Recipe):
    """What `doctor` is asked."""


@verb(DoctorOptions)
def doctor(options: DoctorOptions) -> Diagnosis:
    """Check this installation and say how to fix what is wrong.

    Python, packages, decoders, places on disk and the built-in model pack are looked at. Nothing is changed, and no
    network is needed.

    Returns:
        The checks; `.ok` says whether none failed.
    """
    from medclip.inspecting.doctor import diagnose

    return diagnose(options.settings)
