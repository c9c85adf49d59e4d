"""The engine that a caller names. Ray is imported by a run on it, and by nothing else."""

from __future__ import annotations

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.runs.engines.engine import Engine

LOCAL, RAY = "local", "ray"


def choose_engine(engine: str, workers: int | None = None) -> Engine | None:
    """Return the engine that a caller names; None for this process.

    Args:
        engine: "local", "ray" or "ray:N" with the number of workers; those of the cluster where none is named.
        workers: Reading processes of each worker; the cores of its share of a node where None.

    Raises:
        MedclipError: WRONG_USE for another word; MISSING_CODEC where Ray is not installed.

    Example:
        >>> choose_engine("local") is None
        True
    """
    name, colon, number = engine.partition(":")
    if name == LOCAL and not colon:
        return None
    if name != RAY or (colon and not (number.isdecimal() and int(number))):
        raise MedclipError(
            Reason.WRONG_USE,
            f"a run has the engine local, ray or ray:N with a number of workers from 1, not {engine!r}.",
            hint=did_you_mean(name, (LOCAL, RAY)),
        )
    from medclip.runs.engines.ray_cluster import RayEngine, check_ray

    check_ray()
    return RayEngine(int(number) if colon else None, workers)
