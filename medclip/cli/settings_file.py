"""The settings file of the command line: what it says for the command that runs, and the limits of its reading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.settings_file import SettingsFile, find_settings_file, read_settings_file
from medclip.options import Option, spellings
from medclip.settings import ReadPolicy, Settings
from medclip.verbs import fits

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
        policy: Policy of reading that the command line states.

    Raises:
        MedclipError: As `machine_file`.
    """
    settings = Settings() if policy is None else Settings(policy=policy)
    file = machine_file()
    return settings if file is None else file.settings(settings)


def arguments_of(file: SettingsFile, command: str, declared: Mapping[str, Option], given: Sequence[str]) -> list[str]:
    """Return what a file says for a command as words of a command line, to stand before those of the user.

    Args:
        file: Settings file that was read.
        command: Whole name of the command.
        declared: Options of the command.
        given: The user's words; an option among them is left out.

    Raises:
        MedclipError: WRONG_USE for an option that the command does not have, and for a value that it does not take.
    """
    options = (one for one in declared.values() if one.is_on_command_line and not one.is_argument)
    by_name = {spellings(one)[0].partition("/")[0].lstrip("-"): one for one in options if one.spelled not in NEVER}
    words: list[str] = []
    for key, value in file.options.get(command, {}).items():
        name = key.replace("_", "-")
        one = by_name.get(name)
        if one is None:
            why = "stands on the command line only" if name in NEVER else "is no option"
            raise _fault(file, f"{key!r} {why} of `medclip {command}`.", did_you_mean(name, by_name, "Options are"))
        if isinstance(value, dict) or not fits(one, value):
            raise _fault(file, f"[{command}] {key} does not take {value!r}.")
        on, _, off = spellings(one)[0].partition("/")
        if any(word.partition("=")[0] in (on, off) for word in given):
            continue
        if isinstance(value, bool):
            words += [on] if value else [off] if off else []
        else:
            words += [f"{on}={each}" for each in (value if isinstance(value, list) else [value])]
    return words


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
