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
import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, dataclass_transform

from medclip.errors import MedclipError, Reason, did_you_mean, refuse_missing
from medclip.wording import list_of

_O = TypeVar("_O")
MISSING: Any = dataclasses.MISSING
_TEXTS = frozenset({"str", "None", "Sequence", "Mapping", "list", "tuple", "Asked"})
"""Words of the annotation of an option whose values are texts and nothing else."""
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/")
RECIPE = "recipe"
"""The option that names a file with values of the others."""


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
    present: str = ""
    """Name of what a path of this machine must be there as, for the refusal of one that is not; "" where it need not
    be there."""
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
        return self.default is MISSING

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
    default: Any = MISSING,
    form: str = "",
    kind: Any = MISSING,
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
    present: str = "",
    read: Callable[[Any], Any] | None = None,
    kw_only: Literal[True] = True,
) -> Any:
    """Declare an option that is named: its help, its default, what it takes, and how often people need it."""
    values = (help, form, kind, least, most, choices, needed, often, of_call, place, beside, heading)
    values = (*values, word, present, read)
    return _field(True, False, default, *values)


def argument(
    help: str,
    *,
    default: Any = MISSING,
    form: str = "",
    kind: Any = MISSING,
    choices: Collection[str] = (),
    named: bool = False,
    needed: bool = True,
    of_call: bool = False,
    place: bool = False,
    present: str = "",
    kw_only: Literal[False] = False,
) -> Any:
    """Declare what Python takes by its position; a command takes it so, too, or by name where it is `named`.

    A command must name it then, unless it is not `needed`.
    """
    values = (help, form, kind, None, None, choices, named and needed, True, of_call, place, False, "")
    values = (*values, "", present, None)
    return _field(False, not named, default, *values)


def _field(kw_only: bool, is_argument: bool, default: Any, *values: Any) -> Any:
    names = ("help", "form", "kind", "least", "most", "choices", "is_needed", "is_often_used", "is_of_call")
    names = (*names, "is_place", "is_beside", "heading", "word", "present", "read")
    metadata = dict(zip(names, values, strict=True)) | {"is_argument": is_argument}
    if default is MISSING:
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
    order = sorted(declared, key=lambda name: (is_keyword(kind, name), is_keyword(kind, name) and rank[name]))
    return {name: declared[name] for name in order}


def is_keyword(kind: type, name: str) -> bool:
    """Return whether Python takes an option by its name alone."""
    return cast(Any, kind).__dataclass_fields__[name].kw_only


def _option(kind: type, field: dataclasses.Field[Any]) -> Option:
    if "help" not in field.metadata:
        raise TypeError(f"{kind.__name__}.{field.name} is no option")
    owner = next(base for base in kind.__mro__ if field.name in inspect.get_annotations(base))
    values = dict(field.metadata)
    values["heading"] = values["heading"] or owner.__dict__.get("heading", "")
    annotation = str(field.type)
    if values["kind"] is MISSING:
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
        MedclipError: WRONG_USE, with the sentence of the first rule that is broken; MISSING_FILE where there is nothing
            that has to be there.
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
    if getattr(given, "log", None):
        return  # such a refusal is an event of the log, as of a drive that is away at night: the verb writes it
    for one in declared.values():
        _refuse_missing(one, getattr(given, one.name))


def _refuse_missing(one: Option, value: Any) -> None:
    """Refuse a path of this machine where there is nothing: here, before a verb imports what it calls.

    One of several that is not there is the verb's to judge.
    """
    if one.is_repeatable and isinstance(value, (list, tuple)) and len(value) == 1:
        (value,) = value
    if one.present and isinstance(value, (str, os.PathLike)) and not _URL.match(str(value)):
        refuse_missing(value, one.present)  # which URLs it takes the verb knows


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
        if is_number and set(re.findall(r"\w+", one.annotation)) <= _TEXTS:
            raise MedclipError(Reason.WRONG_USE, f"{one.key} takes text, not {each:g}.")
        if one.choices and isinstance(each, str) and each not in one.choices:
            raise MedclipError(
                Reason.WRONG_USE,
                f"{one.key} is one of {list_of(list(one.choices))}, not {each!r}.",
                hint=did_you_mean(each, one.choices),
            )
