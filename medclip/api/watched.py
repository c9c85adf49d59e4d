"""Verbs over files whose calls are watched: `log` and `metrics` are theirs, from the first check to the last table."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from medclip.api.run_arguments import path_of
from medclip.runs.operations.watch import watch_run

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def watched(verb: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Return a verb that writes the log and the metrics which its arguments `log` and `metrics` name.

    Args:
        verb: Its run takes the watch from `medclip.runs.operations.watch.current_watch`.
    """

    @wraps(verb)
    def call(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        named = {name: kwargs.get(name) for name in ("log", "metrics")}
        log, metrics = (None if v is None else path_of(v, f"the file of the {n}") for n, v in named.items())
        with watch_run(verb.__name__, log, metrics):
            return verb(*args, **kwargs)

    return call
