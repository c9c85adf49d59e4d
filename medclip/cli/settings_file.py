"""The settings file of the command line: what it says for the command that runs, and the limits of its reading."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, get_args, get_origin

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.recipes.settings_file import SettingsFile, find_settings_file, read_settings_file
from medclip.settings import ReadPolicy, Settings

NEVER = ("yes", "overwrite", "help")
"""What replaces or removes is asked for at the time, by who is there."""


def machine_file() -> SettingsFile | None:
    """Return what the settings file of this machine says; None where there is none.

    Raises:
        MedclipError: As `read_settings_file` and `find_settings_file`.
    """
    path = find_settings_file()
    return None if path is None else read_settings_file(path)


def command_settings(policy: ReadPolicy | None = None) -> Settings:
    """Return the settings that a command reads with: the defaults, with the limits of the settings file.

    Args:
        policy: What the command line says of reading.

    Raises:
        MedclipError: As `machine_file`.
    """
    settings = Settings() if policy is None else Settings(policy=policy)
    file = machine_file()
    return settings if file is None else file.settings(settings)


def arguments_of(
    file: SettingsFile, command: str, function: Callable[..., object], parameters: Iterable[Any], given: Sequence[str]
) -> list[str]:
    """Return what a file says for a command as words of a command line, to stand before those of the user.

    Args:
        file: What was read.
        command: Its whole name.
        function: What the command runs; its annotations say what values are.
        parameters: Those of the command.
        given: The user's words; an option among them is left out.

    Raises:
        MedclipError: WRONG_USE for an option that the command does not have, and for a value that it does not take.
    """
    by_name = {
        spelled.lstrip("-"): parameter
        for parameter in parameters
        if parameter.param_type_name == "option"
        for spelled in parameter.opts
        if spelled.startswith("--") and spelled.lstrip("-") not in NEVER
    }
    annotations = {name: p.annotation for name, p in inspect.signature(function, eval_str=True).parameters.items()}
    words: list[str] = []
    for key, value in file.options.get(command, {}).items():
        name = key.replace("_", "-")
        parameter = by_name.get(name)
        if parameter is None:
            why = "stands on the command line only" if name in NEVER else "is no option"
            raise _fault(file, f"{key!r} {why} of `medclip {command}`.", did_you_mean(name, by_name, "Options are"))
        if not _fits(value, annotations[parameter.name]):
            raise _fault(file, f"[{command}] {key} does not take {value!r}.")
        spelled = (*parameter.opts, *parameter.secondary_opts)
        if any(word.partition("=")[0] in spelled for word in given):
            continue
        if isinstance(value, bool):
            words += [f"--{name}"] if value else parameter.secondary_opts[:1]
        else:
            words += [f"--{name}={one}" for one in (value if isinstance(value, list) else [value])]
    return words


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value of the file is of the kind that an option takes: no text for a number, nothing for a flag."""
    kinds = str(get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation)
    if "list[" in kinds:
        return isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))
    if isinstance(value, bool) or "bool" in kinds:
        return isinstance(value, bool) and "bool" in kinds
    numbers = (int,) if "int" in kinds else (int, float) if "float" in kinds else (str,)
    return isinstance(value, numbers)


def refuse_unknown_commands(file: SettingsFile, commands: Iterable[str]) -> None:
    """Refuse a table of a file that is of no command.

    Raises:
        MedclipError: WRONG_USE.
    """
    known = tuple(commands)
    for command in file.options:
        if command not in known:
            raise _fault(file, f"there is no command {command!r}.", did_you_mean(command, known))


def _fault(file: SettingsFile, sentence: str, hint: str = "") -> MedclipError:
    return MedclipError(Reason.WRONG_USE, sentence, where=file.path, hint=hint)
