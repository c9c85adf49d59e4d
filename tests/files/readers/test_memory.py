"""The budget of memory, and how much the machine has."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from medclip.files.readers.memory import FIRST_GUESS_BYTES, LEAST_BYTES, MemoryBudget, machine_memory_bytes

_GB = 10**9


def _system(root: Path, cgroup: str, limits: dict[str, str]) -> tuple[Path, Path]:
    proc, groups = root / "proc", root / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(cgroup)
    for name, value in limits.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(value + "\n")
    return proc, groups


@pytest.mark.parametrize(
    ("cgroup", "limits", "expected"),
    [
        ("0::/\n", {"memory.max": "2000000000"}, 2 * _GB),
        ("0::/job/step\n", {"job/memory.max": "2000000000", "job/step/memory.max": "max"}, 2 * _GB),
        ("0::/job\n", {"job/memory.max": "2000000000", "job/memory.high": "1000000000"}, _GB),
        ("0::/of/the/host\n", {"memory.max": "2000000000"}, 2 * _GB),
        ("4:cpu,memory:/job\n0::/\n", {"memory/job/memory.limit_in_bytes": "3000000000"}, 3 * _GB),
        ("4:memory:/docker/a1b2\n", {"memory/memory.limit_in_bytes": "3000000000"}, 3 * _GB),
    ],
)
def test_the_lowest_limit_of_the_group_and_those_above_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroup: str, limits: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(os, "sysconf", lambda _: 10**6)  # pages of a million bytes, a million of them
    assert machine_memory_bytes(*_system(tmp_path, cgroup, limits)) == expected


def test_without_a_limit_it_is_the_machine(tmp_path: Path) -> None:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    unlimited = {"memory/memory.limit_in_bytes": "9223372036854771712", "memory.max": "max"}
    assert machine_memory_bytes(*_system(tmp_path, "4:memory:/\n0::/\n", unlimited)) == machine
    assert machine_memory_bytes(tmp_path / "none", tmp_path / "none") == machine


@dataclass
class _Holder:
    pid: int
    busy: bool


class _World:
    """Processes with memory, and a clock that moves a second with each look."""

    def __init__(self, total: int, parent: int, **held: int) -> None:
        self.held = {os.getpid(): parent} | {int(pid[1:]): size for pid, size in held.items()}
        self.now = 0.0
        self.budget = MemoryBudget(total, lambda pid: self.held.get(pid, 0), self._clock)

    def _clock(self) -> float:
        self.now += 1.0
        return self.now


def test_a_job_begins_while_there_is_room_for_another_one() -> None:
    world = _World(4 * _GB, _GB, p1=_GB)
    first = _Holder(1, busy=True)
    assert world.budget.has_room([first, _Holder(0, busy=False)])
    world.held[1] = 3 * _GB
    assert not world.budget.has_room([first, _Holder(0, busy=False)])


def test_jobs_that_have_just_begun_count_with_what_jobs_needed_before() -> None:
    world = _World(4 * _GB, _GB, p1=0, p2=0)
    begun = [_Holder(1, busy=True), _Holder(2, busy=True)]
    assert world.budget.has_room(begun)
    world.held[3] = int(1.2 * _GB)
    world.budget.learn(_Holder(3, busy=False), 3)
    assert not world.budget.has_room(begun)
    for _ in range(200):  # many small ones later
        world.held[3] = FIRST_GUESS_BYTES
        world.budget.learn(_Holder(3, busy=False), 3)
    assert world.budget.has_room(begun)


def test_beyond_the_budget_the_largest_of_those_that_work_is_the_one() -> None:
    world = _World(4 * _GB, _GB, p1=_GB, p2=2 * _GB, p3=_GB)
    small, large, idle = _Holder(1, busy=True), _Holder(2, busy=True), _Holder(3, busy=False)
    assert [world.budget.is_exceeded_by(h, [small, large, idle]) for h in (small, large)] == [False, True]
    world.held[3] = 0
    assert not world.budget.is_exceeded_by(large, [small, large, idle])


def test_a_parent_that_holds_all_leaves_the_least_for_reading() -> None:
    world = _World(4 * _GB, 5 * _GB, p1=LEAST_BYTES)
    assert not world.budget.is_exceeded_by(_Holder(1, busy=True), [_Holder(1, busy=True)])
    assert world.budget.is_taken_by_parent
    assert world.budget.for_reading_bytes == LEAST_BYTES


def test_a_process_that_keeps_more_than_an_even_share_is_pointed_out() -> None:
    world = _World(4 * _GB, 0, p1=int(1.5 * _GB))
    assert not world.budget.learn(_Holder(1, busy=False), 2)
    assert world.budget.learn(_Holder(1, busy=False), 4)
