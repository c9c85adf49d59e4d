"""The list of dear tests: which tests `make test` leaves to `make test-slow`, and CI to the night."""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path

from tests.kits.costs import COSTS, DEAR_S, mark_dear, read_costs

_ROOT = COSTS.parents[1]


@lru_cache
def _functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_dear_test_is_there() -> None:
    costs = read_costs()
    names = [name.partition("[")[0].split("::") for name in costs]
    assert [name for name in names if name[-1] not in _functions(_ROOT / name[0])] == []
    assert list(costs) == sorted(costs)
    assert min(costs.values()) >= DEAR_S / 2


class _Item:
    """A test, as far as its marks go."""

    def __init__(self, nodeid: str, *marks: str) -> None:
        self.nodeid, self.marks = nodeid, list(marks)

    def get_closest_marker(self, name: str) -> str | None:
        return name if name in self.marks else None

    def add_marker(self, mark: object) -> None:
        self.marks.append(mark.name)


def test_dear_tests_are_slow_and_the_dearest_and_third_parameters_run_at_night(monkeypatch) -> None:
    costs = {"a.py::one": 3.0, "a.py::dearest": 9.0, "a.py::ever": 9.0}
    costs |= {f"a.py::many[{n}]": 1.0 for n in range(4)}
    monkeypatch.setattr("tests.kits.costs.read_costs", lambda: costs)
    items = [_Item(name) for name in ("a.py::one", "a.py::dearest", "a.py::cheap")]
    items += [_Item("a.py::ever", "slow"), *(_Item(f"a.py::many[{n}]") for n in range(5))]
    mark_dear(items)  # pyright: ignore
    marks = {item.nodeid: item.marks for item in items}
    assert marks["a.py::one"] == marks["a.py::ever"] == ["slow"]
    assert marks["a.py::dearest"] == ["slow", "nightly"]
    assert marks["a.py::cheap"] == marks["a.py::many[4]"] == []
    assert [len(marks[f"a.py::many[{n}]"]) for n in range(4)] == [1, 1, 2, 2]
    assert marks["a.py::many[3]"] == ["slow", "nightly"]
