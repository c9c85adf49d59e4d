"""A module that stands in its place before its code runs: what is known, submodules, and the first other attribute."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from medclip.models.towers.quick_towers import defer_module


@pytest.fixture
def heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package whose code counts its runs, with a module beside it."""
    package = tmp_path / "heavy_towers"
    package.mkdir()
    (package / "__init__.py").write_text("import sys\nsys.heavy_runs += 1\nfrom .light import NAME\nknown = 'own'\n")
    (package / "light.py").write_text("NAME = 'light'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "heavy_runs", 0, raising=False)
    yield package.name
    for name in [name for name in sys.modules if name.partition(".")[0] == package.name]:
        del sys.modules[name]


def runs() -> int:
    return sys.heavy_runs  # type: ignore[attr-defined]


def test_submodules_and_known_attributes_run_no_code_of_their_package(heavy: str) -> None:
    defer_module(heavy, {"known": "before"})
    assert import_module(f"{heavy}.light").NAME == "light"
    assert import_module(heavy).known == "before"
    assert runs() == 0


def test_the_first_other_attribute_runs_the_code_once_in_the_same_module(heavy: str) -> None:
    run = defer_module(heavy, {"known": "before"})
    module = import_module(heavy)
    assert module.NAME == "light"
    assert (module.known, runs()) == ("own", 1)
    assert run() is module is sys.modules[heavy]
    assert runs() == 1
    with pytest.raises(AttributeError):
        module.nonsense  # noqa: B018


def test_importing_all_names_runs_the_code_first(heavy: str) -> None:
    defer_module(heavy, {"known": "before"})
    names: dict[str, object] = {}
    exec(f"from {heavy} import *", names)
    assert (names["NAME"], names["known"], runs()) == ("light", "own", 1)


def test_a_module_that_is_imported_or_missing_cannot_be_deferred(heavy: str) -> None:
    import_module(heavy)
    with pytest.raises(ImportError, match="cannot be deferred"):
        defer_module(heavy, {})
    with pytest.raises(ImportError, match="cannot be deferred"):
        defer_module("heavy_towers_of_nobody", {})


def test_a_module_in_a_package_is_an_attribute_of_it(heavy: str) -> None:
    package = import_module(heavy)
    (Path(package.__path__[0]) / "late.py").write_text("NUMBER = 3\n")
    defer_module(f"{heavy}.late", {"known": 1})
    assert package.late.known == 1
    assert package.late.NUMBER == 3
