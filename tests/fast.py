"""`make test-fast`: types and tests of what has changed since main, nearest first, in less than three minutes.

Changed are the files that differ from where this branch left main, and new ones. Tested are, in this order:

1. changed test files, and those that import a changed kit;
2. the tests of the rooms (`medclip/<room>/`) that hold a changed file;
3. tests of other rooms that import a changed file themselves.

A test that has not begun when `SECONDS` are over is skipped and counted: `make test` runs them all. pyright checks the
changed files of the library and those that import one of them. No tool to select tests by the lines they run
(pytest-testmon) stands here: it wants a whole run with tracing first, and sees neither the reading processes nor the
commands that tests start, nor tasks, templates and style sheets.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ALWAYS = ("tests/test_repository.py", "tests/test_public_api.py")
SECONDS = 120
DEADLINE = "MEDCLIP_TEST_DEADLINE"


def changed_files(base: str = "main") -> list[str]:
    """Return the files that differ from where HEAD left `base`, committed or not, and those that git does not know."""
    start = _git("merge-base", "HEAD", base) or ["HEAD"]
    names = {*_git("diff", "--name-only", start[0]), *_git("ls-files", "--others", "--exclude-standard")}
    return sorted(names)


def _git(*words: str) -> list[str]:
    done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else []


def module_of(file: str) -> str:
    """Return the dotted name of a Python file of the repository."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def imports_of(file: Path) -> frozenset[str]:
    """Return every name that a file imports anywhere in it: of `from a import b` both `a` and `a.b`."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def select_tests(changed: Iterable[str], imports: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the test files that `changed` needs, nearest first, as the head of this file says.

    Args:
        changed: Paths in the repository.
        imports: Of every Python file below tests/, the names it imports.
    """
    changed = list(changed)
    python = {module_of(name) for name in changed if name.endswith(".py")}
    rooms = {f"tests/{name.split('/')[1]}/" for name in changed if name.startswith("medclip/") and name.count("/") > 1}
    # What holds fixtures for tests beside and below it: a changed conftest.py is a change of all of them.
    rooms |= {name.removesuffix("conftest.py") for name in changed if name.startswith("tests/") and "conftest" in name}
    kits = {module for module in python if module.startswith("tests.")}
    for _ in range(3):  # kits import kits
        kits |= {module_of(name) for name in imports if "/kits/" in name and kits & set(imports[name])}

    def distance(name: str) -> int | None:
        if name in changed or kits & set(imports[name]):
            return 0
        if name.startswith(tuple(rooms)):
            return 1
        return 2 if python & set(imports[name]) else None

    ranked = [(distance(name), name) for name in imports if Path(name).name.startswith("test_")]
    nearest = [name for rank, name in sorted((r, n) for r, n in ranked if r is not None)]
    return list(dict.fromkeys([*ALWAYS, *nearest]))


def select_types(changed: Iterable[str], imports: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the changed files of the library and those that import one of them: what pyright has to look at."""
    python = {module_of(name) for name in changed if name.startswith("medclip/") and name.endswith(".py")}
    return sorted(name for name in imports if module_of(name) in python or python & set(imports[name]))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what has not begun in time (this file is a plug-in of the pytest that it starts)."""
    if time.time() > float(os.environ[DEADLINE]):
        pytest.skip(f"not begun in {SECONDS} seconds; make test runs it")


def main() -> int:
    """Run pyright beside pytest; the exit code is pytest's, or 1 where types are wrong."""
    began, changed = time.time(), changed_files()
    imports = {
        folder: {p.relative_to(REPOSITORY).as_posix(): imports_of(p) for p in (REPOSITORY / folder).rglob("*.py")}
        for folder in ("medclip", "tests")
    }
    tests, types = select_tests(changed, imports["tests"]), select_types(changed, imports["medclip"])
    print(f"{len(changed)} files changed: {len(types)} of the library for pyright, {len(tests)} test files", flush=True)
    pyright = subprocess.Popen(
        [sys.executable, "-m", "pyright", *types] if types else ["true"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # By files and in their order, so that what is nearest comes first.
    spread = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
    code = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.fast", "-m", "not slow and not nightly", *spread, *tests],
        cwd=REPOSITORY,
        env=os.environ | {DEADLINE: str(began + SECONDS)},
        check=False,
    ).returncode
    print(pyright.communicate()[0].strip())
    return code or pyright.returncode


if __name__ == "__main__":
    sys.exit(main())
