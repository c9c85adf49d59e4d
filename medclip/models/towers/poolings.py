"""How the tokens of an image tower alone become one vector, by name. No torch here."""

from __future__ import annotations

from collections.abc import Mapping

from medclip.errors import MedclipError, Reason, did_you_mean

ARGUMENTS = "timm_model_args"
"""Key of `vision_cfg` with timm's arguments of a tower. open_clip has no such key."""
OF_TIMM = ("token", "avg", "map")
"""Those that timm's towers do themselves (`global_pool`)."""
POOLINGS: Mapping[str, str] = {
    "token": "the class token",
    "avg": "the mean of the patch tokens (or of the last feature map), then the norm that follows it in timm",
    "map": "timm's attention pooling",
    "mean": "the mean of the patch tokens, without class and register tokens, after the last norm",
    "token+mean": "the class token beside the mean of the patch tokens (without register tokens), twice as wide",
}
"""`timm_pool` of an image tower alone, and what each one means."""


def check_pooling(name: str) -> None:
    """Refuse a name that no pooling has.

    Raises:
        MedclipError: WRONG_USE, naming those that there are.
    """
    if name not in POOLINGS:
        raise MedclipError(
            Reason.WRONG_USE, f"there is no pooling {name!r}.", hint=did_you_mean(name, POOLINGS, "Poolings are")
        )
