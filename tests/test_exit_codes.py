"""The exit codes: one table in the docs, one in the code, and what commands say of them."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

from medclip.cli.main import COMMANDS
from medclip.errors import Reason
from medclip.exit_codes import OF_REASON, ExitCode, exit_code

TABLE = Path(__file__).parents[1] / "docs" / "how-to" / "exit_codes_and_resume.md"


def rows_of_the_table() -> dict[int, str]:
    return {int(code): meaning for code, meaning in re.findall(r"^\| (\d+) \| (.+) \|$", TABLE.read_text(), re.M)}


def test_the_table_of_the_docs_has_the_codes_of_the_code():
    assert sorted(rows_of_the_table()) == sorted(ExitCode)


def test_the_table_of_the_docs_names_the_reasons_that_are_no_refusal_at_their_code():
    listed = {
        Reason(name): code for code, text in rows_of_the_table().items() for name in re.findall(r"\(`(\w+)`\)", text)
    }
    assert listed == OF_REASON


def test_every_other_reason_is_a_refusal():
    assert {exit_code(reason) for reason in Reason if reason not in OF_REASON} == {ExitCode.REFUSED}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_its_own_codes(name: str):
    module, function = COMMANDS[name][0].split(":")
    text = inspect.getdoc(getattr(importlib.import_module(module), function)) or ""
    written = re.search(r"Exit code: (0 .*)", text, re.S)
    assert written, "no line of exit codes"
    assert {int(code) for code in re.findall(r"(?:^|, )(\d+) ", written[1])} <= set(ExitCode)
