"""What users have stays as it was frozen: tables and their columns, pages, `--json`, exit codes, refusals, hashes.

frozen.json was made at the commit that stands in it, by `python -m tests.snapshots.freeze`; the whole folder leaves the
tree when issue 38 ends. A difference is named by case, line of the case, file, column or key. What issue 38 changes by
name is frozen again with `--only CASE`, in the commit that changes it.

Names of options, `--help` and what medclip says of its progress are not held. Decimals are compared to some digits, and
images by their size, mean and spread: another processor may differ in the last bits, and no promise says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medclip.cli.main import COMMANDS
from tests.snapshots.cases import ALL, CASES, WRONG
from tests.snapshots.driver import Driver
from tests.snapshots.run_case import FROZEN, differences, run_case, words_of


@pytest.fixture(scope="module")
def frozen() -> dict[str, Any]:
    """The snapshots by case."""
    return json.loads(FROZEN.read_text(encoding="utf-8"))["cases"]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Driver, Path]]:
    """The process that forks, and its folder."""
    root = tmp_path_factory.mktemp("snapshots").resolve()
    with Driver(root) as started:
        yield started, root


@pytest.mark.nightly
@pytest.mark.slow  # all together: some 160 seconds of processor time
@pytest.mark.parametrize("name", ALL)
def test_what_a_user_has_is_what_was_frozen(name: str, frozen: dict[str, Any], driver: tuple[Driver, Path]):
    found = differences(frozen[name], run_case(name, *driver))
    assert not found, "\n".join([f"{len(found)} differences in {name!r}:", *found[:40]])


def test_every_case_is_frozen_and_nothing_else(frozen: dict[str, Any]):
    assert list(frozen) == list(ALL)
    for name, lines in ALL.items():
        assert list(frozen[name]["steps"]) == [str(number) for number, _ in enumerate(lines, 1)], name


def test_every_command_is_run_right_and_wrong_and_with_json_where_it_has_that():
    def commands(table: dict[str, tuple[str, ...]]) -> list[tuple[str, bool]]:
        lines = [words_of(line) for lines in table.values() for line in lines]
        names = (next((n for k in (2, 1) if (n := " ".join(words[:k])) in COMMANDS), "") for words in lines)
        return [(name, "--json" in words) for name, words in zip(names, lines, strict=True) if name]

    right, wrong = commands(dict(CASES)), commands(dict(WRONG))
    assert {name for name, as_json in right if as_json} == set(COMMANDS), "all have --json"
    assert set(COMMANDS) - {name for name, _ in wrong} <= {"doctor", "models list", "models presets"}
