"""Which notebooks and pages of the documentation have run as they are written, with the verbs of today.

Usage: python -m pipelines.docs_site.record  # once the tests of their blocks have passed: `make executed`

`pipelines/docs_site/executed.json`, which is in git, has for each the digest of what it is written with: its own text,
the files of the names of medclip and of the commands that it uses, the examples, and the pipelines that it takes
something from. CI runs those whose digest is another; all run at night, for what has changed below those names.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RECORD = Path(__file__).with_name("executed.json")
_COMMAND = re.compile(r"\bmedclip ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?")
_PYTHON = re.compile(r"^ *```python\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def names_in(code: str) -> dict[str, Any]:
    """Return what Python code names of medclip (`medclip.models.load`), each with what it is."""
    import medclip

    named: dict[str, Any] = {}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("medclip."):
            named[f"{node.module}"] = import_module(f"{node.module}")
        words = ast.unparse(node).split(".") if isinstance(node, ast.Attribute) else []
        if words[:1] == ["medclip"] and all(word.isidentifier() for word in words):
            thing: Any = medclip
            for word in words[1:]:
                thing = getattr(thing, word)
            named[".".join(words)] = thing
    return named


def _used(path: Path) -> Iterator[Any]:
    """Yield the functions, classes and modules that a notebook or a page uses, and the verbs of its commands."""
    from medclip.cli.main import COMMANDS

    text = path.read_text(encoding="utf-8")
    for code in [text] if path.suffix == ".py" else _PYTHON.findall(text):
        lines = code.splitlines(keepends=True)
        indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
        yield from names_in("".join(line[indent:] if line.strip() else line for line in lines)).values()
    for first, second in _COMMAND.findall(text):
        place, _ = COMMANDS.get(f"{first} {second}") or COMMANDS.get(first) or ("", "")
        if place:
            module, _, name = place.partition(":")
            yield import_module(module)
            yield import_module(getattr(import_module(module), name).verb.__module__)


def files_of(path: Path) -> list[Path]:
    """Return a notebook or page, the files of what it names, the examples, and the pipelines that it uses."""
    files = {path, *(each for each in (ROOT / "examples").rglob("*") if each.is_file())}
    for thing in _used(path):
        if inspect.ismodule(thing) or inspect.isclass(thing) or callable(thing):
            source = inspect.getsourcefile(inspect.unwrap(thing) if inspect.isfunction(thing) else thing)
            files |= {Path(source).resolve()} if source else set()
    for folder in set(re.findall(r"pipelines\W+(\w+)", path.read_text(encoding="utf-8"))):
        files |= set((ROOT / "pipelines" / folder).rglob("*.py"))
    return sorted(each for each in files if "__pycache__" not in each.parts)


def written_with(path: Path) -> str:
    """Return the SHA-256 of these files; of code but itself without docstrings and comments, which change no run."""
    digest = hashlib.sha256()
    for each in files_of(path):
        content = each.read_bytes() if each == path or each.suffix != ".py" else _what_runs(each)
        digest.update(each.relative_to(ROOT).as_posix().encode() + b"\0" + content)
    return digest.hexdigest()


@cache
def _what_runs(file: Path) -> bytes:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [one for one in node.body if not _is_text(one)]
    return ast.dump(tree).encode()


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_recorded(path: Path) -> bool:
    """Return whether a notebook or page ran as it is written today, with the verbs of today."""
    return json.loads(RECORD.read_text()).get(_name(path)) == written_with(path) if RECORD.exists() else False


def record(paths: Iterable[Path]) -> None:
    """Write down that these ran."""
    known = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    known |= {_name(path): written_with(path) for path in paths}
    there = {name: digest for name, digest in sorted(known.items()) if (ROOT / name).exists()}
    RECORD.write_text(json.dumps(there, indent=1) + "\n")


if __name__ == "__main__":
    record(sorted((ROOT / "docs").rglob("*.md")))
