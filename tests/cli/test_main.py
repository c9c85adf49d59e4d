"""The command tree, and how errors become one line and an exit code."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import typer

from medclip.cli import main as cli
from medclip.errors import MedclipError, Reason


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch):
    """Put a function behind `medclip probe`."""

    def put(function):
        monkeypatch.setattr(cli, "_probe", function, raising=False)
        monkeypatch.setitem(cli.COMMANDS, "probe", ("medclip.cli.main:_probe", "A command of the tests."))

    return put


def test_help_lists_every_command_with_one_line(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, (_, summary) in cli.COMMANDS.items():
        assert name.split()[0] in shown
        if " " not in name:
            assert summary in shown, f"the line of {name} does not fit 80 columns"
    for group, summary in cli.GROUPS.items():
        assert summary in shown
        assert cli.main([group, "--help"]) == 0
        inside = capsys.readouterr().out
        for name in [n for n in cli.COMMANDS if n.startswith(f"{group} ")]:
            assert name.split()[1] in inside


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_in_the_table_exists_and_has_help(name: str, capsys: pytest.CaptureFixture[str]):
    module, function = cli.COMMANDS[name][0].split(":")
    assert inspect.getdoc(getattr(importlib.import_module(module), function))
    assert cli.main([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"medclip {name}" in shown
    usage = next(line for line in shown.splitlines() if "Usage:" in line)
    assert not set(usage) & set("{}"), usage


@pytest.mark.parametrize(
    ("words", "question"),
    [
        (["scor"], "Did you mean 'score' or 'doctor'?"),
        (["list"], "Did you mean 'slides' or 'models list'?"),
        (["models", "lst"], "Did you mean 'list'?"),
        (["adapt", "comparee"], "Did you mean 'compare'?"),
        (["score", "x", "--taks", "y"], "--task"),
    ],
)
def test_a_mistyped_command_or_option_is_asked_back(
    words: list[str], question: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "120")
    assert cli.main(words) == 2
    assert question in capsys.readouterr().err


def test_importing_the_command_files_loads_nothing_heavy():
    modules = ", ".join(sorted({target.split(":")[0] for target, _ in cli.COMMANDS.values()}))
    code = (
        f"import sys; import {modules}; print([m for m in ('torch', 'numpy', 'open_clip', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_a_refusal_is_one_line_on_stderr_and_exit_code_2(command, capsys: pytest.CaptureFixture[str]):
    def refuse() -> None:
        raise MedclipError(Reason.OUTPUT_IN_USE, "holds another run.", where="out", hint="Choose another folder.")

    command(refuse)
    assert cli.main(["probe"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "medclip: out: holds another run. Choose another folder.\n"


def test_a_file_name_in_a_refusal_cannot_drive_the_terminal(command, capsys: pytest.CaptureFixture[str]):
    def refuse() -> None:
        raise MedclipError(Reason.EMPTY_FILE, "is empty.", where="a\x1b[31m\n\u202eb.png")

    command(refuse)
    assert cli.main(["probe"]) == 2
    assert capsys.readouterr().err == "medclip: a\\x1b[31m\\n\\u202eb.png: is empty.\n"


def test_a_bug_is_one_line_without_the_errors_own_text(
    command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def break_() -> None:
        raise KeyError("DOE^JANE 19700101")

    command(break_)
    monkeypatch.delenv("MEDCLIP_DEBUG", raising=False)
    assert cli.main(["probe"]) == 1
    shown = capsys.readouterr().err
    assert "this is a bug in medclip (KeyError" in shown
    assert "MEDCLIP_DEBUG=1" in shown
    assert "DOE" not in shown
    assert len(shown.splitlines()) == 1


def test_the_trace_of_a_bug_is_shown_on_request(
    command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def break_() -> None:
        raise KeyError("detail")

    command(break_)
    monkeypatch.setenv("MEDCLIP_DEBUG", "1")
    assert cli.main(["probe"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_int_from_a_command_is_the_exit_code(command):
    def three() -> int:
        return 3

    command(three)
    assert cli.main(["probe"]) == 3


def test_an_exit_raised_by_a_command_is_kept(command):
    def leave() -> None:
        raise typer.Exit(3)

    command(leave)
    assert cli.main(["probe"]) == 3


def test_ctrl_c_is_exit_code_130_without_a_trace(command, capsys: pytest.CaptureFixture[str]):
    def stop() -> None:
        raise KeyboardInterrupt

    command(stop)
    assert cli.main(["probe"]) == 130
    assert capsys.readouterr().err == "medclip: interrupted.\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_scheduler_and_a_terminal_that_closes_end_a_command_as_ctrl_c_does(command, capsys, number: int):
    def wait() -> None:
        os.kill(os.getpid(), number)
        time.sleep(10)

    before = signal.getsignal(number)
    command(wait)
    assert cli.main(["probe"]) == 130
    assert capsys.readouterr().err == "medclip: interrupted.\n"
    assert signal.getsignal(number) == before, "the caller's again"


def test_under_nohup_a_terminal_that_closes_ends_nothing(command):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        command(lambda: os.kill(os.getpid(), signal.SIGHUP))
        assert cli.main(["probe"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.DISK_FULL, 4),
        (Reason.WRITE_ERROR, 4),
        (Reason.OUT_OF_MEMORY, 4),
        (Reason.UNREACHABLE, 4),
        (Reason.BUSY, 5),
    ],
)
def test_what_is_no_refusal_has_a_code_of_its_own(command, reason: Reason, code: int):
    def end() -> None:
        raise MedclipError(reason, "it ends.")

    command(end)
    assert cli.main(["probe"]) == code


def test_lack_of_memory_is_incomplete_and_no_bug(command, capsys: pytest.CaptureFixture[str]):
    def end() -> None:
        raise MemoryError

    command(end)
    assert cli.main(["probe"]) == 4
    assert "bug" not in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["nonsense"], ["models", "nonsense"], ["--nonsense"], ["models"], []])
def test_wrong_use_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    assert cli.main(arguments) == 2
    assert capsys.readouterr()


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]):
    import medclip

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"medclip {medclip.__version__}"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_has_plain_words_for_values_and_no_riddles(command: str, capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main([*command.split(), "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert not re.findall(r"<[a-z][a-z \[\]]*>|\b[aA]gain\.|: read them|, \.\.\.", text)


def test_a_group_of_commands_has_both_words_for_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "--help"]) == 0
    short = capsys.readouterr().out
    assert cli.main(["models", "--help-all"]) == 0
    assert capsys.readouterr().out == short


def test_a_command_that_went_is_answered_with_the_one_that_does_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["captions", "from-ecg", "t.csv"]) == 2
    assert "medclip pairs captions --from ecg" in " ".join(capsys.readouterr().err.replace("│", " ").split())
