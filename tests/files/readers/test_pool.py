"""The reading pool: what one bad file may cost."""

from __future__ import annotations

import os
import time

import pytest

from medclip.errors import MedclipError, Reason
from medclip.files.readers.pool import ReadingPool


def test_results_come_back_in_the_order_they_were_asked_for() -> None:
    with ReadingPool(2, timeout_s=60) as pool:
        futures = pool.map(divmod, [(n, 3) for n in range(20)], ahead=4)
        assert [future.result() for future in futures] == [divmod(n, 3) for n in range(20)]


def test_map_takes_no_more_jobs_than_it_may_have_in_flight() -> None:
    taken: list[int] = []

    def jobs():
        for n in range(100):
            taken.append(n)
            yield (n, 1)

    with ReadingPool(1, timeout_s=60) as pool:
        futures = pool.map(divmod, jobs(), ahead=5)
        assert len(taken) == 5
        next(futures).result()
        next(futures)
        assert len(taken) == 6


def test_a_process_that_dies_costs_one_job_and_is_replaced() -> None:
    with ReadingPool(1, timeout_s=60) as pool:
        first = pool.submit(os.getpid)
        crash = pool.submit(os._exit, 139)
        after = pool.submit(os.getpid)
        with pytest.raises(MedclipError) as caught:
            crash.result()
        assert caught.value.reason is Reason.DECODER_CRASHED
        assert first.result() != after.result()


def test_a_job_over_the_time_limit_is_stopped_and_the_next_one_runs() -> None:
    with ReadingPool(1, timeout_s=1.5) as pool:
        slow = pool.submit(time.sleep, 60)
        after = pool.submit(divmod, 7, 2)
        with pytest.raises(MedclipError) as caught:
            slow.result()
        assert caught.value.reason is Reason.TIMEOUT
        assert after.result() == (3, 1)


def test_any_other_error_of_a_decoder_names_its_type_only() -> None:
    with ReadingPool(1, timeout_s=60) as pool, pytest.raises(MedclipError) as caught:
        pool.submit(int, "DOE^JANE").result()
    assert caught.value.reason is Reason.CORRUPT
    assert "ValueError" in str(caught.value)
    assert "DOE" not in str(caught.value)


def test_what_a_decoder_prints_does_not_disturb_the_answers() -> None:
    with ReadingPool(1, timeout_s=60) as pool:
        pool.submit(os.write, 1, b"noise from a C library\n").result()
        pool.submit(print, "noise from Python").result()
        assert pool.submit(divmod, 7, 2).result() == (3, 1)


def test_an_urgent_job_goes_first() -> None:
    with ReadingPool(1, timeout_s=60) as pool:
        order: list[str] = []
        futures = [pool.submit(time.sleep, 0.3)]
        for name, urgent in (("late", False), ("soon", True)):
            future = pool.submit(time.sleep, 0.05, urgent=urgent)
            future.add_done_callback(lambda _, name=name: order.append(name))
            futures.append(future)
        for future in futures:
            future.result()
    assert order == ["soon", "late"]


def test_closing_stops_running_jobs_at_once() -> None:
    start = time.monotonic()
    with ReadingPool(2, timeout_s=60) as pool:
        pool.submit(time.sleep, 50)
        pool.submit(time.sleep, 50)
        time.sleep(0.5)
    assert time.monotonic() - start < 15


def test_reading_processes_do_not_import_torch() -> None:
    with ReadingPool(1, timeout_s=60) as pool:
        assert pool.submit(_count_torch).result() == 0


def _count_torch() -> int:
    import sys

    return sum(name.split(".")[0] == "torch" for name in sys.modules)
