"""Commands of verbs: their options, help and settings come from what the verb declares; a command only prints."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from medclip.options import Option, options_of, spellings
from medclip.verbs import make_options, named_values

COMMON = "Common options"
_LAST = ("This machine", "Unattended", "Output")
"""Headings that stand behind all others, in this order."""
_FEW = 12
"""A command of so many options shows them all."""
_WORDS: Mapping[Any, str] = {Path: "PATH", int: "N", float: "X", str: "TEXT"}
JSON = Option(
    name="as_json",
    help="Print JSON and nothing else.",
    annotation="bool",
    default=False,
    heading="Output",
    form="",
    kind=bool,
    least=None,
    most=None,
    choices=(),
    is_argument=False,
    is_needed=False,
    is_often_used=True,
    is_of_call=True,
    is_place=False,
    is_beside=True,
    word="json",
)
"""The option of every command that its verb has not."""


def derive(
    verb: Any,
    show: Callable[[Any, bool, Any], int | None],
    *,
    exit_codes: str,
    refused: str = "wrong use or refused",
    interrupted: Callable[[Any], int] | None = None,
    check: Callable[[Mapping[str, Any]], None] | None = None,
    is_lookup: bool = False,
    reads_settings: bool = True,
) -> Callable[..., int]:
    """Return the function of a command, as `medclip.cli.main` takes it.

    Args:
        verb: Verb from `medclip.verbs.verb`.
        show: Function that prints what the verb returned, as JSON where its second argument is true, and returns the
            exit code; None is 0. The third is the values that were named, here or in a recipe, by name.
        exit_codes: Exit codes of the command, in words: "0 all scored or skipped, 3 some failed".
        refused: Words for exit code 2.
        check: Function that refuses named values that a command does not take, though Python does.
        interrupted: Function of the named values that is called where a signal ended the verb; returns the exit code.
        is_lookup: Whether progress is shown on a terminal alone.
        reads_settings: Whether the settings file of this machine holds; `doctor` looks at that file itself.
    """
    declared = options_of(verb.options)

    def run(ctx: typer.Context, **values: Any) -> int:
        from medclip.cli.progress import forgiving_stderr, progress
        from medclip.cli.settings_file import command_settings

        as_json = values.pop("as_json")
        # By name: typer brings a click of its own, whose ParameterSource is another class than click's.
        sources = {name: ctx.get_parameter_source(name) for name in values}
        given = {name: values[name] for name, source in sources.items() if source and source.name == "COMMANDLINE"}
        named = named_values(verb.options, given)
        refuse_lacking(declared, named, ctx)
        if check is not None:
            check(named)
        if reads_settings and "settings" in declared:
            named["settings"] = command_settings()
        try:
            is_quiet = not forgiving_stderr().isatty() if is_lookup else as_json
            with progress(quiet=is_quiet) as shown:
                value = make_options(verb.options, {**named, **({"progress": shown} if "progress" in declared else {})})
                result = verb.carry_out(value)
        except KeyboardInterrupt:
            if interrupted is None:
                raise
            return interrupted(named)
        return show(result, as_json, named) or 0

    run_: Any = run
    run_.__name__, run_.__module__ = verb.__name__, verb.__module__
    run_.__signature__ = command_signature(declared)
    run_.__doc__ = f"{_head(inspect.getdoc(verb) or '')}\n\nExit code: {exit_codes}, 2 {refused}."
    run_.options, run_.verb = {**declared, "as_json": JSON}, verb
    return run


def refuse_lacking(declared: Mapping[str, Option], named: Mapping[str, Any], ctx: Any) -> None:
    """Refuse a call that lacks what must be named, as click says it."""
    for one in declared.values():
        if must_be_named(one) and one.name not in named:
            kind = "argument" if one.is_argument else "option"
            ctx.fail(f"Missing {kind} '{one.spelled.upper() if one.is_argument else f'--{one.spelled}'}'.")


def command_signature(declared: Mapping[str, Option]) -> inspect.Signature:
    """Return the signature of which typer makes a command: arguments, options by their headings, `--json`."""
    kinds = inspect.Parameter
    shown = [one for one in declared.values() if one.is_on_command_line]
    parameters = [
        kinds("ctx", kinds.KEYWORD_ONLY, annotation=typer.Context),
        *(
            kinds(one.name, kinds.KEYWORD_ONLY, default=_default(one), annotation=_annotation(one))
            for one in (*(one for one in shown if one.is_argument), *by_heading(shown), JSON)
        ),
    ]
    return inspect.Signature(parameters, return_annotation=int)


def by_heading(shown: Iterable[Option]) -> list[Option]:
    """Return the options that are no arguments, with their headings' options together, in the order of first use."""
    named = [one for one in shown if not one.is_argument]
    headings = sorted(dict.fromkeys(heading_of(one) for one in named), key=_rank)
    return [one for heading in headings for one in named if heading_of(one) == heading]


def _rank(heading: str) -> int:
    """Return where a heading stands: what everybody needs first, what happens at the end last."""
    return 0 if heading == COMMON else 1 + (_LAST.index(heading) + 1 if heading in _LAST else 0)


def heading_of(one: Option) -> str:
    """Return the heading that an option stands below."""
    return one.heading or COMMON


def show_options(command: Any, declared: Mapping[str, Option], *, is_all: bool, has_recipe: bool) -> None:
    """Let the help of a command show the options that people often need in a sentence each, or all in full.

    Args:
        command: The command.
        declared: Options of the command.
        is_all: Whether all are shown.
        has_recipe: Whether nothing is required, since a recipe may have it.
    """
    has_few = sum(one.is_on_command_line for one in declared.values()) <= _FEW
    command.help = command.help if is_all else _short(command.help)
    for parameter in command.params:
        one = declared.get(parameter.name)
        if one is None:
            continue
        parameter.required = must_be_named(one) and not has_recipe
        if is_all:
            parameter.help = help_of(one, is_short=False)
        elif not (has_few or one.is_often_used or must_be_named(one)):
            parameter.hidden = True


def _short(text: str) -> str:
    """Return the first paragraph of a help, and the exit codes."""
    first, *others = text.split("\n\n")
    return "\n\n".join([first, *(one for one in others if one.startswith("Exit code"))])


def must_be_named(one: Option) -> bool:
    """Whether a command lacks something without this option."""
    return one.is_on_command_line and (one.is_required or one.is_needed)


def _default(one: Option) -> Any:
    return None if one.is_required or one.is_needed or one.is_repeatable else one.default


def _annotation(one: Option) -> Any:
    kind = list[one.kind] if one.is_repeatable else one.kind
    if _default(one) is None:
        kind = kind | None
    metavar = one.form or (None if one.kind is bool else _WORDS[one.kind])
    if one.is_argument:
        word = one.form or one.spelled.upper()
        return Annotated[kind, typer.Argument(metavar=word, help=help_of(one), show_default=False, readable=False)]
    return Annotated[
        kind,
        typer.Option(
            *spellings(one),
            metavar=metavar,
            help=help_of(one),
            min=one.least if one.kind in (int, float) else None,
            max=one.most if one.kind in (int, float) else None,
            show_default=_default(one) not in (None, False, ""),
            rich_help_panel=heading_of(one),
            readable=False,  # why a file cannot be read is medclip's to say
        ),
    ]


def help_of(one: Option, *, is_short: bool = True) -> str:
    """Return what help says of an option: its first sentence, or all of them."""
    text = re.split(r"(?<=[.?!]) (?=[A-Z\"'`])", one.help)[0] if is_short else one.help
    default = re.search(r"Default: .*?[.](?= |$)", one.help)
    text = text if default is None or default[0] in text else f"{text} {default[0]}"
    text += f" One of {', '.join(one.choices)}." if one.choices else ""
    return f"{text} Repeatable." if one.is_repeatable else text


def _head(doc: str) -> str:
    """Return the paragraphs of a docstring before its sections, each in one line: a terminal has its own width."""
    head = re.split(r"^(?:Args|Returns|Raises|Example):$", doc, maxsplit=1, flags=re.MULTILINE)[0].strip()
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in head.split("\n\n"))
