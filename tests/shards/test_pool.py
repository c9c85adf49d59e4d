from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from medclip.errors import MedclipError
from medclip.shards.pool import CRASHED, TIMED_OUT, run_in_order


def work(value):
    if value == "crash":
        os._exit(1)
    if value == "hang":
        time.sleep(60)
    if value == "raise":
        raise ValueError(value)
    return value


def run(values, *, workers=2, timeout_s=30.0):
    return list(run_in_order(work, ((v,) for v in values), workers=workers, timeout_s=timeout_s))


def test_results_come_in_the_order_of_the_jobs():
    assert run(list(range(40))) == list(range(40))
    assert run([]) == []


def test_a_crash_costs_one_job_wherever_it_stands():
    values = [1, "crash", 2, 3, 4, 5, 6, 7, 8, "crash"]
    assert run(values) == [CRASHED if v == "crash" else v for v in values]


def test_a_hang_costs_one_job():
    assert run([1, "hang", 2, 3], timeout_s=3.0) == [1, TIMED_OUT, 2, 3]


def test_an_error_of_the_work_is_raised():
    with pytest.raises(ValueError, match="raise"):
        run([1, "raise"])


def test_jobs_are_taken_only_a_little_ahead():
    taken = 0

    def jobs():
        nonlocal taken
        for i in range(50):
            taken += 1
            yield (i,)

    results = run_in_order(work, jobs(), workers=1, timeout_s=30.0)
    next(results)
    assert taken <= 4
    results.close()


def test_a_script_without_the_main_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from medclip.shards.pool import run_in_order\nlist(run_in_order(str, [(1,)], workers=1, timeout_s=9.0))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "__main__" in done.stderr.splitlines()[-1]
    assert MedclipError.__name__ in done.stderr.splitlines()[-1]
