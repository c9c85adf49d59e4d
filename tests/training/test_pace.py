"""What the log says of speed and of waiting."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from medclip.training import ranks
from medclip.training.ranks import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Event:
    """Stands for a CUDA event; in milliseconds."""

    clock: Clock

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = self.clock.now * 1e3

    def elapsed_time(self, other: Event) -> float:
        return other.at - self.at


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Event.clock = Clock()
    monkeypatch.setattr(ranks, "time", clock)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**20)
    return clock


def _take(pace: Pace, clock: Clock, steps: int, gap: float, length: float) -> None:
    for _ in range(steps):
        clock.now += gap
        pace.tick()
        clock.now += length
        pace.tick()
        pace.count(10, gap)


def test_a_cpu_has_speed_and_waiting_and_validation_counts_as_neither(clock: Clock) -> None:
    pace = Pace(torch.device("cpu"))
    _take(pace, clock, 4, gap=1, length=4)
    with pace.paused():
        clock.now += 100
    assert pace.read() == {"images_s": 2.0, "data_wait": 0.2}
    _take(pace, clock, 1, gap=0, length=2)
    assert pace.read() == {"images_s": 5.0, "data_wait": 0.0}


def test_a_card_is_idle_between_the_end_of_a_step_and_the_beginning_of_the_next(clock: Clock) -> None:
    pace = Pace(torch.device("cuda"))
    _take(pace, clock, 3, gap=1, length=4)  # the gap before the first step is not known
    values: dict[str, Any] = pace.read()
    assert values["device_idle"] == pytest.approx(2 / 14)
    assert values["gpu_mb"] == 3
    _take(pace, clock, 2, gap=1, length=3)  # from the end of the last one that was read
    assert pace.read()["device_idle"] == pytest.approx(2 / 8)
