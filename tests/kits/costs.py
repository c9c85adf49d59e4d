"""What tests cost: one that takes over a second of CPU is slow, and one of over four runs at night.

`tests/costs.txt` has these tests and their seconds, and `make costs` measures them anew. CI runs them in `make
test-slow`; where more than two sets of parameters of one test are so dear, the others run at night. What must run on
every push, whatever it takes, is marked slow where it stands.

Usage: python -m tests.kits.costs FOLDER  # as `pytest -p tests.kits.costs --costs FOLDER` has measured it
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

COSTS = Path(__file__).parents[1] / "costs.txt"
DEAR_S, NIGHT_S = 1.0, 4.0
_IN_CI = 2


def read_costs() -> dict[str, float]:
    """Return the seconds of CPU of each dear test, by its name."""
    rows = (line.split(" ", 1) for line in COSTS.read_text(encoding="utf-8").splitlines())
    return {name: float(seconds) for seconds, name in rows}


def mark_dear(items: Iterable[pytest.Item]) -> None:
    """Mark the dear tests slow; the dearest, and those beyond the first few parameters of one, run at night."""
    costs, seen = read_costs(), Counter[str]()
    for item in items:
        if item.nodeid in costs and not item.get_closest_marker("slow"):
            name = item.nodeid.partition("[")[0]
            seen[name] += 1
            item.add_marker(pytest.mark.slow)
            if seen[name] > _IN_CI or costs[item.nodeid] >= NIGHT_S:
                item.add_marker(pytest.mark.nightly)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare where seconds are written."""
    parser.addoption("--costs", type=Path, help="folder to write the CPU seconds of each test to")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Measure this process and those of its processes that have ended."""
    folder, before = item.config.getoption("--costs"), sum(os.times()[:4])
    yield
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
            marks = [name for name in ("slow", "nightly") if item.get_closest_marker(name)]
            file.write(json.dumps([item.nodeid, sum(os.times()[:4]) - before, marks]) + "\n")


def main(folder: Path) -> None:
    """Write what was measured to tests/costs.txt; tests that were not run keep what they had.

    One that is dear already is so until it takes half of that: what tests share falls on the first of them.
    """
    rows = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    costs = read_costs() if COSTS.exists() else {}
    for name, seconds, marks in rows:
        if seconds >= DEAR_S * (0.5 if name in costs else 1) and (name in costs or not marks):
            costs[name] = seconds
        else:
            costs.pop(name, None)
    text = "".join(f"{costs[name]:.1f} {name}\n" for name in sorted(costs))
    COSTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
