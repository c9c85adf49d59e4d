"""Verbs: functions whose arguments are declared options, and how the values of these are named: in a call, in a recipe.

`medclip.options` declares the options; the signature, the docstring and the recipe of a verb come from there.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any, ClassVar, ParamSpec, Protocol, TypeVar, cast

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.options import MISSING, RECIPE, Option, check_options, is_keyword, options_of
from medclip.wording import list_of

_O = TypeVar("_O")
_P = ParamSpec("_P")
_P_contra = ParamSpec("_P_contra")
_R = TypeVar("_R")
_R_co = TypeVar("_R_co", covariant=True)
_UNKNOWN_PLACE = "?"
"""Stands in the recipe of a run for a file or folder: run.json holds no path, and whoever repeats it names its own."""


class Verb(Protocol[_P_contra, _R_co]):
    """A function whose arguments are declared options: `options` is their class, of which `carry_out` takes a value."""

    options: ClassVar[Any]
    carry_out: ClassVar[Any]

    def __call__(self, *args: _P_contra.args, **kwargs: _P_contra.kwargs) -> _R_co:
        """Carry it out."""
        ...


def verb(declared: Callable[_P, _O]) -> Callable[[Callable[[_O], _R]], Verb[_P, _R]]:
    """Make a function of one value of options one of their names, as users call it.

    Its docstring gets the section `Args` from the help of the options. A `recipe`, where the class has that option, is
    read first; what is named beside it overrides it.

    Args:
        declared: A class made by `options`.
    """

    def make(function: Callable[[_O], _R]) -> Verb[_P, _R]:
        def carry_out(given: _O) -> _R:
            check_options(given)
            return function(given)

        @functools.wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            refuse_strange_names(function.__name__, options_of(declared), kwargs)
            return carry_out(read_options(declared, args, kwargs))

        call_: Any = call
        call_.options = declared
        call_.carry_out = carry_out
        call_.__signature__ = signature_of(declared, function)
        call_.__doc__ = _with_arguments(inspect.getdoc(function) or "", options_of(declared))
        return call_

    return make


def refuse_strange_names(verb: str, declared: Mapping[str, Option], named: Mapping[str, Any]) -> None:
    """Refuse keywords that are no options.

    Raises:
        TypeError: As Python raises it, with the name that may be meant.
    """
    for name in named:
        if name not in declared:
            hint = did_you_mean(name, declared)
            raise TypeError(f"{verb}() got an unexpected keyword argument {name!r}.{f' {hint}' if hint else ''}")


def read_options(declared: Callable[_P, _O], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _O:
    """Return the value of a class of options for the arguments of a call, with those of a recipe below them.

    Raises:
        TypeError: As Python raises for arguments that are not those of the class.
        MedclipError: As `read_recipe`.
    """
    make: Any = declared
    named = inspect.signature(make).bind_partial(*args, **kwargs).arguments
    return make_options(make, named_values(make, named))


def named_values(declared: Any, named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of options that are named, with those of a recipe below them.

    Args:
        declared: A class made by `options`. One with recipes of its own has a static method `with_recipe`, which does
            this for it.
        named: Values by the names of their options. Of one that has keys, those that are named go before the recipe's.

    Raises:
        MedclipError: As `read_recipe`; WRONG_USE for a form that an option does not take.
    """
    if hasattr(declared, "with_recipe"):
        return declared.with_recipe(named)
    known = options_of(declared)
    path = recipe_in(named, known)
    if path is None:
        return dict(named)
    keyed = {name for name in named if known[name].annotation == "Overrides"}
    below = read_recipe(path, known, named.keys() - keyed)
    both = {name: {**below[name], **_read_named(known[name], named[name])} for name in keyed & below.keys()}
    return {**below, **named, **both}


def recipe_in(named: Mapping[str, Any], declared: Mapping[str, Option]) -> Any:
    """Return the file of options that a call names; None where it names none, or its `recipe` is of another kind."""
    one = declared.get(RECIPE)
    return None if one is None or one.is_argument else named.get(RECIPE)


def make_options(declared: Callable[..., _O], named: Mapping[str, Any]) -> _O:
    """Return the value of a class of options, whichever form its values are named in.

    Raises:
        TypeError: As Python raises where one is missing.
        MedclipError: WRONG_USE for a form that an option does not take.
    """
    known = options_of(declared)
    lacking = [one.name for one in known.values() if one.is_required and one.name not in named]
    if lacking:
        raise TypeError(f"{list_of(lacking)} must be named.")
    return declared(**{name: _read_named(known[name], value) for name, value in named.items()})


def _read_named(one: Option, value: Any) -> Any:
    try:
        return _read(one, value)
    except ValueError as e:
        raise MedclipError(Reason.WRONG_USE, f"{e}.") from e


def _read(one: Option, value: Any) -> Any:
    """Return a value in the one form that an option has: what its `read` makes, and floats of whole numbers."""
    if one.read is not None:
        try:
            return one.read(value)
        except ValueError as e:
            raise ValueError(f"{one.name} {e}") from e
    if isinstance(value, (str, Path)) and one.annotation.startswith("Sequence["):
        return (value,)  # one of several, and no sequence of letters
    return float(value) if one.kind is float and isinstance(value, int) and not isinstance(value, bool) else value


def read_recipe(path: str | Path, declared: Mapping[str, Option], named: Container[str] = ()) -> dict[str, Any]:
    """Read the values of options from a YAML file with their names, or from the `recipe` of a run.json.

    Args:
        path: The file.
        declared: The options.
        named: Names of those that are named beside it, and override it.

    Raises:
        MedclipError: RECIPE_INVALID for a name that is no option, and for a value that it does not take; WRONG_USE for
            a file or folder that a run.json does not hold, and nobody names; what `medclip.recipe.read_yaml` raises.
    """
    values = values_of_recipe(path)
    known = {one.key: one for one in declared.values() if one.kind is not None}
    read: dict[str, Any] = {}
    for key, value in values.items():
        one = known.get(str(key).replace("-", "_").strip("_"))
        if one is None or one.name == RECIPE:
            hint = did_you_mean(str(key), [name for name in known if name != RECIPE], "Options are")
            raise MedclipError(Reason.RECIPE_INVALID, f"{key!r} is no option of this.", where=path, hint=hint)
        if one.name in named:
            continue
        if one.is_place and value == _UNKNOWN_PLACE:
            raise MedclipError(
                Reason.WRONG_USE,
                f"a run does not keep where its {key} was.",
                where=path,
                hint=f"Name it beside the recipe: {one.spelled.upper() if one.is_argument else f'--{one.spelled}'}.",
            )
        if one.read is None and not fits(one, value):
            raise MedclipError(Reason.RECIPE_INVALID, f"{key} does not take {value!r}.", where=path)
        try:
            read[one.name] = tuple(value) if one.read is None and isinstance(value, list) else _read(one, value)
        except ValueError as e:
            raise MedclipError(Reason.RECIPE_INVALID, f"{e}.", where=path) from e
        except MedclipError as e:
            raise MedclipError(Reason.RECIPE_INVALID, f"{one.key}: {e.message}", where=path, hint=e.hint) from e
    return read


def values_of_recipe(path: str | Path) -> dict[str, Any]:
    """Return what a file says, by name, whether or not there are such options.

    Raises:
        MedclipError: RECIPE_INVALID for what has no names; what `medclip.recipe.read_yaml` raises.
    """
    from medclip.recipe import read_yaml

    values = read_yaml(Path(path))
    if isinstance(values, dict) and isinstance(values.get(RECIPE), dict):  # of a run.json
        values = values[RECIPE]
    if not isinstance(values, dict):
        raise MedclipError(Reason.RECIPE_INVALID, "a recipe has names of options and their values.", where=path)
    return cast(dict[str, Any], values)


def fits(one: Option, value: Any) -> bool:
    """Whether a value from a file is of the kind that an option takes: no text for a number, nothing for a flag."""
    if value is None:
        return one.default is None
    if isinstance(value, Mapping) or one.kind is dict:
        if not (isinstance(value, Mapping) and one.takes_mapping):
            return False
        return "Asked" not in one.annotation or all(fits(one, each) for each in value.values())
    if isinstance(value, list):
        return one.is_repeatable and all(fits(one, each) for each in value)
    if isinstance(value, bool) or one.kind is bool:
        return isinstance(value, bool) and one.kind is bool
    kinds: dict[Any, tuple[type, ...]] = {int: (int,), float: (int, float)}
    texts = (str, int) if re.search(r"\bint\b", one.annotation) else (str,)  # a size in bytes
    return isinstance(value, kinds.get(one.kind, texts))


def recipe_of(given: Any, *, has_places: bool = False) -> dict[str, Any]:
    """Return the recipe that repeats a call: what differs from the defaults, but what is of one call alone.

    Args:
        given: A value of a class of options. A file or folder is in it as a question mark, and what lives in memory
            alone is left out.
        has_places: Name files and folders.
    """
    recipe: dict[str, Any] = {}
    for one in options_of(given).values():
        value = getattr(given, one.name)
        if one.kind is None or one.is_of_call or one.is_beside or not one.is_set(value):
            continue
        if has_places and isinstance(value, Path):
            value = str(value)
        plain = _UNKNOWN_PLACE if one.is_place and not has_places and not _is_name(value) else _plain(value)
        if plain is not MISSING:
            recipe[one.key] = plain
    return recipe


def _is_name(value: Any) -> bool:
    """Whether a value is the name of a pack, a back-end or a form, and no place."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_name, value))
    return isinstance(value, str) and not re.search(r"[/\\:=]", value) and not Path(value).exists()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, (list, tuple)):
        each = [_plain(one) for one in value]
        return MISSING if any(one is MISSING for one in each) else each
    if isinstance(value, Mapping):
        pairs = {str(key): _plain(one) for key, one in value.items()}
        return MISSING if any(one is MISSING for one in pairs.values()) else pairs
    return MISSING


def by_name(recipe: Mapping[str, Any], declared: Mapping[str, Option]) -> dict[str, Any]:
    """Return the values of a recipe, which has them by their keys, by the names of their options."""
    names = {one.key: one.name for one in declared.values()}
    return {names.get(key, key): value for key, value in recipe.items()}


def shared(given: Any, other: Any) -> dict[str, Any]:
    """Return the values of options that another class, or verb, has by the same names."""
    names = options_of(getattr(other, "options", other))
    return {name: getattr(given, name) for name in options_of(given) if name in names}


def signature_of(declared: Any, function: Callable[..., Any] | None = None) -> inspect.Signature:
    """Return the signature that users see: all options by their names, and what `function` returns."""
    kinds = inspect.Parameter
    parameters = [
        kinds(
            one.name,
            kinds.KEYWORD_ONLY if is_keyword(declared, one.name) else kinds.POSITIONAL_OR_KEYWORD,
            default=kinds.empty if one.is_required else one.default,
            annotation=one.annotation,
        )
        for one in options_of(declared).values()
    ]
    returns = kinds.empty if function is None else function.__annotations__.get("return", kinds.empty)
    return inspect.Signature(parameters, return_annotation=returns)


def _with_arguments(doc: str, declared: Mapping[str, Option]) -> str:
    """Insert the section `Args` before the first other section of a docstring."""
    lines = ["Args:", *(f"    {one.name}: {_described(one)}" for one in declared.values())]
    head, section, rest = doc, "", ""
    for match in re.finditer(r"^(Returns|Raises|Yields|Example|Examples|Note):$", doc, re.MULTILINE):
        head, section, rest = doc[: match.start()], match[0], doc[match.end() :]
        break
    return (
        "\n".join(part for part in (head.rstrip(), "", *lines, "", section + rest) if part is not None).rstrip() + "\n"
    )


def _described(one: Option) -> str:
    choices = f" One of {list_of(list(one.choices))}." if one.choices else ""
    ends = {"At least": one.least, "At most": one.most}
    return f"{one.help}{choices}{''.join(f' {words} {end:g}.' for words, end in ends.items() if end is not None)}"
