"""Are the options given to a method among those it has, and of the right kind? Asked before anything is read."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.wording import list_of

LOOP = "loop"
"""What a method calls its `**` parameter when it passes the rest on to `tower_loop.Loop`."""
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", type(None): "null"}


def options_of(fit: Callable[..., Any]) -> Mapping[str, Any]:
    """Give the type of each option of a method, by name.

    Args:
        fit: Its function: the keyword-only parameters but `seed`, and the fields of `Loop` behind `**loop`.
    """
    parameters = inspect.signature(fit).parameters.values()
    names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "seed"]
    found = dict(_hints(fit, names))
    if any(p.kind is p.VAR_KEYWORD and p.name == LOOP for p in parameters):
        from medclip.adaptation.towers.train_loop import Loop

        found |= {name: hint for name, hint in get_type_hints(Loop).items() if name not in found}
    return found


def check_options(name: str, fit: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse options that a method does not have, and values of another kind than it takes.

    Args:
        name: The method, for the error.
        fit: Its function.
        options: Value by option.

    Raises:
        MedclipError: WRONG_USE, with the options that there are, or with what the option takes.
    """
    known = options_of(fit)
    if strange := sorted(set(options) - set(known)):
        raise MedclipError(
            Reason.WRONG_USE,
            f"{name} has no such option as {strange[0]!r}.",
            hint=did_you_mean(strange[0], known, "Its options are"),
        )
    for option, value in options.items():
        if not _fits(value, known[option]):
            raise MedclipError(
                Reason.WRONG_USE, f"the option {option} of {name} is {value!r}; it takes {_said(known[option])}."
            )


def _hints(fit: Callable[..., Any], names: Sequence[str]) -> Mapping[str, Any]:
    """Read the annotations of these parameters alone: those of the others name types that are not imported."""
    own = {n: a for n, a in inspect.get_annotations(fit).items() if n in names}
    return get_type_hints(types.SimpleNamespace(__annotations__=own), globalns=getattr(fit, "__globals__", {}))


def _fits(value: object, hint: Any) -> bool:
    """Whether a value is of a type; one value stands for a sequence of one, a whole number for a number."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple and not (len(inner) == 2 and inner[1] is ...):
        return isinstance(value, list | tuple) and len(value) == len(inner) and all(map(_fits, value, inner))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Sequence):
        several = isinstance(value, list | tuple)
        return all(_fits(v, inner[0]) for v in value) if several else _fits(value, inner[0])
    if hint is None or hint is type(None):
        return value is None
    if hint is bool or isinstance(value, bool):
        return hint is bool and isinstance(value, bool)
    if hint is int:
        return isinstance(value, Integral)
    if hint is float:
        return isinstance(value, Real)
    return not isinstance(hint, type) or isinstance(value, hint)


def _said(hint: Any) -> str:
    """Say a type in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return list_of(list(dict.fromkeys(_said(part) for part in inner)), "or")
    if origin is Literal:
        return list_of([str(v) for v in inner], "or")
    if origin is tuple and not (len(inner) == 2 and inner[1] is ...):
        return f"[{', '.join(map(_said, inner))}]"
    if origin is not None and isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list, each of it {_said(inner[0])}"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))
