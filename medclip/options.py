"""Options of verbs, each declared once: command, Python signature, recipe, identity and reference page come from that.

A verb's options are a class whose fields are options; groups that verbs share are its base classes:

    @options
    class ScoreOptions(Reading, Machine):
        path: Any = argument("File or folder that is scored.", kind=Path)
        exam: bool | None = option("Ask mammography examinations by their views.", default=None)

        rules = (excludes("hash_paths", "report_paths", "paths are either hashed or shown.", hint="Choose one."),)

    @verb(ScoreOptions)
    def score(options: ScoreOptions) -> ScoreRun: ...

Callers write `score(folder, workers=2)`, and a type checker knows each of these keywords.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Collection, Container, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, ParamSpec, Protocol, TypeVar, cast, dataclass_transform

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.wording import list_of

_P = ParamSpec("_P")
_P_contra = ParamSpec("_P_contra")
_O = TypeVar("_O")
_R = TypeVar("_R")
_R_co = TypeVar("_R_co", covariant=True)
_MISSING: Any = dataclasses.MISSING
RECIPE = "recipe"
"""The option that names a file with values of the others."""
_UNKNOWN_PLACE = "?"
"""Stands in the recipe of a run for a file or folder: run.json holds no path, and whoever repeats it names its own."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One option: what is said of it, and how it is written."""

    name: str
    help: str
    """Sentences; the first stands alone in short help."""
    annotation: str
    """Its Python type, as it is written."""
    default: Any
    """`dataclasses.MISSING` where it must be named."""
    heading: str
    """Of its group in help."""
    form: str
    """What stands for a value in help, such as COLUMN; "" for the word of its kind."""
    kind: Any
    """Type of one value on the command line; None where Python alone can name it, dict where a recipe can, too."""
    least: float | None
    most: float | None
    choices: Collection[str]
    """A table of rows, too: one that is added later is a choice at once."""
    is_argument: bool
    is_needed: bool
    """A command must name it, though Python need not."""
    is_often_used: bool
    """Short help shows it."""
    is_of_call: bool
    """Of one call alone: neither part of what a run is nor of the recipe that repeats it."""
    is_place: bool
    """A file or folder."""
    is_beside: bool
    """It changes no table: a run that goes on may have another one, and the recipe in run.json leaves it out."""
    word: str = ""
    """How a command and a recipe spell it, where that is another word than its name."""
    read: Callable[[Any], Any] | None = None
    """Turns any form that Python or a recipe may name a value in into one; ValueError says what is wrong."""

    @property
    def is_repeatable(self) -> bool:
        """Whether several values may be named, by repeating the option."""
        return any(word in self.annotation for word in ("Sequence[", "list[", "Mapping[", "Overrides", "Asked"))

    @property
    def is_on_command_line(self) -> bool:
        """Whether a command has it; others are of Python, and of recipes where they are mappings."""
        return self.kind not in (None, dict)

    @property
    def takes_mapping(self) -> bool:
        """Whether values may be named by keys."""
        return any(word in self.annotation for word in ("Mapping[", "Overrides", "Asked"))

    @property
    def spelled(self) -> str:
        """The name as a command spells it, without dashes before it."""
        return self.word or self.name.strip("_").replace("_", "-")

    @property
    def key(self) -> str:
        """The name as a recipe spells it."""
        return self.spelled.replace("-", "_")

    @property
    def is_required(self) -> bool:
        """Whether Python must name it."""
        return self.default is _MISSING

    def is_set(self, value: Any) -> bool:
        """Whether a value is another than the default."""
        if self.is_required or value is self.default:
            return self.is_required
        if isinstance(value, (str, int, float, bool, tuple, list, dict)):
            empty = ("", (), [], {}, None)
            return not (value == self.default or (value in empty and self.default in empty))
        return True


def spellings(one: Option) -> tuple[str, ...]:
    """Return how a command spells an option; a switch that may be on has a word that puts it off."""
    has_two = one.kind is bool and one.default is not False
    return (f"--{one.spelled}/--no-{one.spelled}",) if has_two else (f"--{one.spelled}",)


def option(
    help: str,
    *,
    default: Any = _MISSING,
    form: str = "",
    kind: Any = _MISSING,
    least: float | None = None,
    most: float | None = None,
    choices: Collection[str] = (),
    needed: bool = False,
    often: bool = False,
    of_call: bool = False,
    place: bool = False,
    beside: bool = False,
    heading: str = "",
    word: str = "",
    read: Callable[[Any], Any] | None = None,
    kw_only: Literal[True] = True,
) -> Any:
    """Declare an option that is named: its help, its default, what it takes, and how often people need it."""
    values = (help, form, kind, least, most, choices, needed, often, of_call, place, beside, heading, word, read)
    return _field(True, False, default, *values)


def argument(
    help: str,
    *,
    default: Any = _MISSING,
    form: str = "",
    kind: Any = _MISSING,
    choices: Collection[str] = (),
    named: bool = False,
    needed: bool = True,
    of_call: bool = False,
    place: bool = False,
    kw_only: Literal[False] = False,
) -> Any:
    """Declare what Python takes by its position; a command takes it so, too, or by name where it is `named`.

    A command must name it then, unless it is not `needed`.
    """
    values = (help, form, kind, None, None, choices, named and needed, True, of_call, place, False, "", "", None)
    return _field(False, not named, default, *values)


def _field(kw_only: bool, is_argument: bool, default: Any, *values: Any) -> Any:
    names = ("help", "form", "kind", "least", "most", "choices", "is_needed", "is_often_used", "is_of_call")
    names = (*names, "is_place", "is_beside", "heading", "word", "read")
    metadata = dict(zip(names, values, strict=True)) | {"is_argument": is_argument}
    if default is _MISSING:
        return dataclasses.field(kw_only=kw_only, metadata=metadata)
    return dataclasses.field(default=default, kw_only=kw_only, metadata=metadata)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(option, argument))
def options(declared: type[_O]) -> type[_O]:
    """Make a class of options of a class whose fields are made by `option` and `argument`; it is frozen."""
    return dataclasses.dataclass(frozen=True, eq=False, repr=False)(declared)


def options_of(declared: Any) -> dict[str, Option]:
    """Return the options of a class, or of a value of it, by their names: arguments first, then its own, then groups'.

    Raises:
        TypeError: For a field that is no option, and for one whose kind cannot be known.
    """
    kind = declared if isinstance(declared, type) else type(declared)
    return dict(_options_of(kind))


@functools.cache
def _options_of(kind: type) -> dict[str, Option]:
    declared = {field.name: _option(kind, field) for field in dataclasses.fields(cast(Any, kind))}
    of_kind = inspect.get_annotations(kind)
    rank = {name: (0 if name in of_kind else 1) for name in declared}
    # Positions are those of the class itself: a base's come first.
    order = sorted(declared, key=lambda name: (_is_keyword(kind, name), _is_keyword(kind, name) and rank[name]))
    return {name: declared[name] for name in order}


def _is_keyword(kind: type, name: str) -> bool:
    return cast(Any, kind).__dataclass_fields__[name].kw_only


def _option(kind: type, field: dataclasses.Field[Any]) -> Option:
    if "help" not in field.metadata:
        raise TypeError(f"{kind.__name__}.{field.name} is no option")
    owner = next(base for base in kind.__mro__ if field.name in inspect.get_annotations(base))
    values = dict(field.metadata)
    values["heading"] = values["heading"] or owner.__dict__.get("heading", "")
    annotation = str(field.type)
    if values["kind"] is _MISSING:
        values["kind"] = _kind(annotation, f"{kind.__name__}.{field.name}")
    return Option(name=field.name, annotation=annotation, default=field.default, **values)


def _kind(annotation: str, name: str) -> Any:
    """Return the type of one value on the command line, by the annotation of an option."""
    for word, kind in (("bool", bool), ("Path", Path), ("str", str), ("Overrides", str), ("Asked", str)):
        if re.search(rf"\b{word}\b", annotation):
            return kind
    for word, kind in (("float", float), ("int", int)):
        if re.search(rf"\b{word}\b", annotation):
            return kind
    raise TypeError(f"{name}: say of which kind a value on the command line is")


@dataclasses.dataclass(frozen=True)
class Rule:
    """A combination of options that cannot be. Names are of options, or of properties of their class."""

    first: tuple[str, ...]
    others: tuple[str, ...]
    is_broken: Callable[[bool, bool], bool]
    """Of: one of `first` is set, one of `others` is set."""
    sentence: str
    hint: str
    where: str
    """Name of the option whose value the refusal begins with."""


def _names(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def needs(
    names: str | tuple[str, ...], others: str | tuple[str, ...], sentence: str, *, hint: str = "", where: str = ""
) -> Rule:
    """Declare that any of some options means nothing unless one of others is named.

    Of every rule "{names}" in the sentence stands for those of the first options that are named.
    """
    return Rule(_names(names), _names(others), lambda first, other: first and not other, sentence, hint, where)


def excludes(
    names: str | tuple[str, ...], others: str | tuple[str, ...], sentence: str, *, hint: str = "", where: str = ""
) -> Rule:
    """Declare that none of some options goes with any of others."""
    return Rule(_names(names), _names(others), lambda first, other: first and other, sentence, hint, where)


def one_of(
    names: str | tuple[str, ...], others: str | tuple[str, ...], sentence: str, *, hint: str = "", where: str = ""
) -> Rule:
    """Declare that either some options or others are named: not both, and not neither."""
    return Rule(_names(names), _names(others), lambda first, other: first == other, sentence, hint, where)


def check_options(given: Any) -> None:
    """Refuse values of options that cannot be, or cannot stand together.

    Args:
        given: A value of a class of options.

    Raises:
        MedclipError: WRONG_USE, with the sentence of the first rule that is broken.
    """
    declared = options_of(given)
    for one in declared.values():
        _check_value(one, getattr(given, one.name))
    for base in reversed(type(given).__mro__):
        for rule in base.__dict__.get("rules", ()):
            first, other = (
                any(_is_set(given, declared, name) for name in names) for names in (rule.first, rule.others)
            )
            if rule.is_broken(first, other):
                where = getattr(given, rule.where) if rule.where else None
                raise MedclipError(Reason.WRONG_USE, _sentence(rule, given, declared), where=where, hint=rule.hint)


def _sentence(rule: Rule, given: Any, declared: Mapping[str, Option]) -> str:
    if "{names}" not in rule.sentence:
        return rule.sentence
    named = [f"--{declared[name].spelled}" for name in rule.first if _is_set(given, declared, name)]
    return rule.sentence.replace("{names}", list_of(named))


def _is_set(given: Any, declared: Mapping[str, Option], name: str) -> bool:
    value = getattr(given, name)
    return declared[name].is_set(value) if name in declared else bool(value)


def _check_value(one: Option, value: Any) -> None:
    low, high = one.least, one.most
    for each in value if isinstance(value, (list, tuple)) else (value,):
        is_number = isinstance(each, (int, float)) and not isinstance(each, bool)
        if is_number and not ((low is None or each >= low) and (high is None or each <= high)):  # NaN is refused, too
            ends = f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
            raise MedclipError(Reason.WRONG_USE, f"{one.key} is {ends}, not {each:g}.")
        if one.kind in (int, float, bool) and isinstance(each, str):
            what = "true or false" if one.kind is bool else "a number"
            raise MedclipError(Reason.WRONG_USE, f"{one.key} takes {what}, not {each!r}.")
        if one.kind is str and is_number and not re.search(r"\b(?:int|float|Any|Overrides)\b", one.annotation):
            raise MedclipError(Reason.WRONG_USE, f"{one.key} takes text, not {each:g}.")
        if one.choices and isinstance(each, str) and each not in one.choices:
            raise MedclipError(
                Reason.WRONG_USE,
                f"{one.key} is one of {list_of(list(one.choices))}, not {each!r}.",
                hint=did_you_mean(each, one.choices),
            )


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
        if plain is not _MISSING:
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
        return _MISSING if any(one is _MISSING for one in each) else each
    if isinstance(value, Mapping):
        pairs = {str(key): _plain(one) for key, one in value.items()}
        return _MISSING if any(one is _MISSING for one in pairs.values()) else pairs
    return _MISSING


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
            kinds.KEYWORD_ONLY if _is_keyword(declared, one.name) else kinds.POSITIONAL_OR_KEYWORD,
            default=kinds.empty if one.is_required else one.default,
            annotation=one.annotation,
        )
        for one in options_of(declared).values()
    ]
    returns = kinds.empty if function is None else function.__annotations__.get("return", kinds.empty)
    return inspect.Signature(parameters, return_annotation=returns)


def _with_arguments(doc: str, declared: Mapping[str, Option]) -> str:
    """Put the section `Args` before the first other section of a docstring."""
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
