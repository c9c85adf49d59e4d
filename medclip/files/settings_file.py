"""medclip.toml: options and limits that a machine's commands take where the command line names none.

    [limits]
    decode_timeout_s = 300

    [score]
    device = "cuda"
    log = "/var/log/medclip/score.jsonl"

It lies in the settings' home, or where MEDCLIP_SETTINGS names it. The working folder is not looked at: a file that came
along with images must not choose a model or a place to write to. Python's verbs read no file; `limits` of one can be
given to them.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.access import remedy_of_owner
from medclip.settings import Settings, parse_size

NAME = "medclip.toml"
VARIABLE = "MEDCLIP_SETTINGS"
LIMITS = "limits"
_BYTES = ("max_file_bytes", "max_volume_bytes", "reader_memory_bytes", "slide_cache_bytes", "spool_bytes")
_NUMBERS = ("max_pixels", "decode_timeout_s")
_SWITCHES = ("follow_links",)
_LINE = re.compile(r"at line (\d+)")
_WHOLE = frozenset({"max_pixels", *_BYTES})


@dataclass(frozen=True)
class SettingsFile:
    """What a settings file says, limits checked."""

    path: Path
    limits: Mapping[str, int | float]
    """Fields of `medclip.Settings`."""
    options: Mapping[str, Mapping[str, Any]]
    """Command, such as "score" or "slides embed", to its options as the file spells and writes them."""

    def settings(self, settings: Settings) -> Settings:
        """Return settings with the limits of this file."""
        return replace(settings, **self.limits)


def find_settings_file(settings: Settings | None = None) -> Path | None:
    """Return the settings file of this machine, or None.

    Raises:
        MedclipError: MISSING_FILE where MEDCLIP_SETTINGS names one that does not exist; PERMISSION_DENIED for a home
            of another user.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not os.path.isfile(named):
            raise MedclipError(
                Reason.MISSING_FILE, f"there is no such settings file, and {VARIABLE} names it.", where=named
            )
        return Path(named)
    path = (settings or Settings()).home / NAME
    try:
        return path if path.is_file() else None
    except PermissionError as e:
        hint = f"{remedy_of_owner(path.parent)} Or set MEDCLIP_HOME to a folder that can be written.".lstrip()
        raise MedclipError(
            Reason.PERMISSION_DENIED, "this home of settings may not be read.", where=path.parent, hint=hint
        ) from e


def read_settings_file(path: Path) -> SettingsFile:
    """Read a settings file.

    Args:
        path: TOML: a table `limits`, and one for each command.

    Raises:
        MedclipError: WRONG_USE for what is no TOML, an unknown limit, and a value that is none; what options there are
            each command knows.
    """
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as e:
        place = _LINE.search(str(e))
        raise _fault(path, f"this is no TOML file{'' if place is None else f': look at line {place[1]}'}.") from e
    except OSError as e:
        raise MedclipError(Reason.PERMISSION_DENIED, "this settings file cannot be read.", where=path) from e
    limits = tables.pop(LIMITS, {})
    for name, table in ({LIMITS: limits} | tables).items():
        if not isinstance(table, dict):
            raise _fault(path, f"{name!r} stands outside a table; options stand below [score] or another command.")
    return SettingsFile(path, {name: _limit(path, name, value) for name, value in limits.items()}, _by_command(tables))


def _by_command(tables: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the options of each command; of a group they stand one table deeper: [slides.embed]."""
    options: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        of_command = {key: value for key, value in table.items() if not isinstance(value, dict)}
        below = {key: value for key, value in table.items() if isinstance(value, dict)}
        if of_command or not below:
            options[name] = of_command
        options |= {f"{name} {key}": value for key, value in below.items()}
    return options


def _limit(path: Path, name: str, value: Any) -> int | float:
    if name not in (*_BYTES, *_NUMBERS, *_SWITCHES):
        names = (*_NUMBERS, *_BYTES, *_SWITCHES)
        raise _fault(path, f"there is no limit {name!r}.", did_you_mean(name, names, "Limits are"))
    if name in _SWITCHES:
        if not isinstance(value, bool):
            raise _fault(path, f"[{LIMITS}] {name} is true or false, not {value!r}.")
        return value
    if name in _BYTES and isinstance(value, str):
        try:
            return parse_size(value)
        except MedclipError as e:
            raise _fault(path, f"[{LIMITS}] {name}: {e.message}") from e
    is_number = isinstance(value, int) or (isinstance(value, float) and name not in _WHOLE)
    if isinstance(value, bool) or not is_number or not 0 < value < float("inf"):
        raise _fault(path, f"[{LIMITS}] {name} is a number above 0, not {value!r}.")
    return value


def _fault(path: Path, sentence: str, hint: str = "") -> MedclipError:
    return MedclipError(Reason.WRONG_USE, sentence, where=path, hint=hint)
