"""The reading pool: what one bad file may cost."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from medclip.errors import MedclipError, Reason
from medclip.files.readers import memory, serving, worker
from medclip.files.readers.memory import LEAST_BYTES, held_bytes
from medclip.files.readers.pool import ReadingPool
from medclip.files.readers.serving import Deadline, ReadingProcess
from medclip.settings import Settings
from tests.kits.kills import children_of

pytestmark = pytest.mark.usefixtures("real_readers")
_MB = 1000**2
_ENOUGH = 10**12
on_linux = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is measured on Linux only")


def test_results_come_back_in_the_order_they_were_asked_for() -> None:
    with ReadingPool(2, timeout_s=60) as pool:
        futures = pool.map(divmod, [(n, 3) for n in range(20)], ahead=4)
        assert [future.result() for future in futures] == [divmod(n, 3) for n in range(20)]


def test_jobs_that_come_one_after_another_are_done_by_one_process():
    with ReadingPool(2, timeout_s=60) as pool:
        assert len({pool.submit(os.getpid).result() for _ in range(6)}) == 1


_begun = 0


def begin(number: int) -> None:
    global _begun
    if number < 0:
        raise MedclipError(Reason.MISSING_FILE, "nothing to begin with.")
    _begun += number


def tell_begun() -> int:
    return _begun


def test_every_new_process_begins_with_a_call_of_its_own_once(tmp_path: Path) -> None:
    with ReadingPool(1, timeout_s=60, begin=(begin, (7,))) as pool:
        assert [pool.submit(tell_begun).result() for _ in range(2)] == [7, 7]
        pool.submit(_die, tmp_path / "deaths", 139).exception()
        assert pool.submit(tell_begun).result() == 7


def test_what_is_raised_at_the_beginning_is_the_error_of_each_job() -> None:
    with ReadingPool(1, timeout_s=60, begin=(begin, (-1,))) as pool:
        for _ in range(2):
            with pytest.raises(MedclipError, match="nothing to begin with"):
                pool.submit(tell_begun).result()


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


def test_a_job_that_takes_its_process_down_twice_fails_and_the_others_are_done(tmp_path: Path) -> None:
    with ReadingPool(1, timeout_s=60) as pool:
        first = pool.submit(os.getpid)
        crash = pool.submit(_die, tmp_path / "deaths", 139)
        after = pool.submit(os.getpid)
        with pytest.raises(MedclipError) as caught:
            crash.result()
        assert caught.value.reason is Reason.DECODER_CRASHED
        assert (tmp_path / "deaths").read_text() == "xx"
        assert first.result() != after.result()


def test_a_job_whose_process_dies_once_is_done_again(tmp_path: Path) -> None:
    with ReadingPool(2, timeout_s=60) as pool:
        jobs = [pool.submit(_die_once, tmp_path / str(n), -signal.SIGKILL if n % 2 else 139) for n in range(4)]
        assert [job.result() for job in jobs] == ["read"] * 4


@on_linux
def test_a_job_that_the_system_killed_has_the_machine_for_itself_when_it_is_done_again(tmp_path: Path) -> None:
    """Whatever the system kills mostly needs memory, and beside the others it would be killed again."""
    before = children_of(os.getpid())
    with ReadingPool(2, timeout_s=60, total_bytes=_ENOUGH) as pool:
        killed = pool.submit(_count_siblings_or_die, tmp_path / "deaths", before)
        others = [pool.submit(time.sleep, 0.2) for _ in range(20)]
        assert killed.result() == 0
        assert [job.result() for job in others] == [None] * 20


def test_an_idle_process_that_the_system_kills_costs_the_next_file_nothing() -> None:
    with ReadingPool(1, timeout_s=60) as pool:
        for _ in range(3):
            os.kill(pool.submit(os.getpid).result(), signal.SIGKILL)
            assert pool.submit(divmod, 7, 2).result() == (3, 1)


def test_a_process_that_dies_before_it_takes_the_job_is_found_out_by_its_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReadingProcess, "has_ended", False)  # the system has not noticed yet
    with ReadingPool(1, timeout_s=60) as pool:
        os.kill(pool.submit(os.getpid).result(), signal.SIGKILL)
        assert pool.submit(len, b"x" * 10**6).result() == 10**6


def test_what_the_system_kills_three_times_says_so(tmp_path: Path) -> None:
    with ReadingPool(2, timeout_s=60, total_bytes=_ENOUGH) as pool, pytest.raises(MedclipError) as caught:
        pool.submit(_die, tmp_path / "deaths", -signal.SIGKILL).result()
    assert caught.value.reason is Reason.DECODER_CRASHED
    assert "the system killed" in str(caught.value)


def test_a_time_limit_that_passes_after_the_answer_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = ReadingProcess.ask

    def slowly(self: ReadingProcess, *arguments: Any) -> bytearray:
        answer = ask(self, *arguments)
        time.sleep(1.3)  # the thread is held up between the answer and whatever it does next
        return answer

    with ReadingPool(1, timeout_s=1) as pool:
        first = pool.submit(os.getpid).result()
        monkeypatch.setattr(ReadingProcess, "ask", slowly)
        jobs = [pool.submit(os.getpid) for _ in range(2)]
        assert [job.result() for job in jobs] == [first, first]


def test_time_in_which_this_process_slept_does_not_count() -> None:
    now = [0.0]
    deadline = Deadline(5.0, clock=lambda: now[0])
    now[0] = 3600.0
    assert not deadline.is_over()
    ended = []
    for _ in range(45):
        now[0] += 0.1
        ended.append(deadline.is_over())
    assert ended[-1]


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


def test_an_answer_that_cannot_be_sent_is_an_error_of_the_job_and_no_crash() -> None:
    with ReadingPool(1, timeout_s=60) as pool:
        first = pool.submit(os.getpid).result()
        with pytest.raises(MedclipError) as caught:
            pool.submit(threading.Lock).result()
        assert caught.value.reason is Reason.CORRUPT
        assert pool.submit(os.getpid).result() == first


def test_a_job_larger_than_a_pipe_and_its_answer_come_through() -> None:
    with ReadingPool(1, timeout_s=60) as pool:
        assert pool.submit(bytes, b"x" * 5 * _MB).result() == b"x" * 5 * _MB


def test_jobs_that_are_not_done_when_the_pool_closes_are_cancelled() -> None:
    with ReadingPool(1, timeout_s=60) as pool:
        jobs = [pool.submit(time.sleep, 50) for _ in range(3)]
        time.sleep(0.3)
    for job in jobs:
        with pytest.raises(CancelledError):
            job.result(timeout=5)


def test_a_process_that_cannot_be_started_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_PAUSES_S", (0.01,))
    monkeypatch.setattr(serving, "ReadingProcess", _Refused(3))
    notes: list[str] = []
    with ReadingPool(2, timeout_s=60, note=notes.append) as pool:
        assert [pool.submit(divmod, 7, 2).result() for _ in range(3)] == [(3, 1)] * 3
    (note,) = notes
    assert "Cannot allocate memory" in note


def test_a_process_that_dies_while_it_starts_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_PAUSES_S", (0.01,))
    answer, num_starts = ReadingProcess.answer, []

    def dies_twice(self: ReadingProcess, tick: Any) -> bytearray:
        num_starts.append(1)
        if len(num_starts) <= 2:
            raise EOFError
        return answer(self, tick)

    monkeypatch.setattr(ReadingProcess, "answer", dies_twice)
    with ReadingPool(1, timeout_s=60) as pool:
        assert pool.submit(divmod, 7, 2).result() == (3, 1)


def test_a_machine_that_starts_no_process_for_minutes_ends_the_run_and_blames_no_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "_PAUSES_S", (0.01,))
    monkeypatch.setattr(serving, "_START_PATIENCE_S", 0.2)
    monkeypatch.setattr(serving, "ReadingProcess", _Refused(10**9))
    with ReadingPool(2, timeout_s=60) as pool, pytest.raises(MedclipError) as caught:
        pool.submit(divmod, 7, 2).result()
    assert caught.value.reason is Reason.OUT_OF_MEMORY
    with pytest.raises(MedclipError):  # what would write it into the file's row
        caught.value.problem()


def test_a_machine_with_room_for_one_process_reads_everything_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one waits for longer than its patience; while one process lives, something is read."""
    monkeypatch.setattr(serving, "_PAUSES_S", (0.01,))
    monkeypatch.setattr(serving, "_START_PATIENCE_S", 0.2)
    monkeypatch.setattr(serving, "ReadingProcess", _Refused(10**9, allowed=1))
    with ReadingPool(2, timeout_s=60) as pool:
        assert pool.submit(divmod, 7, 2).result() == (3, 1)
        jobs = [pool.submit(time.sleep, 1.0), pool.submit(divmod, 7, 2)]
        assert [job.result() for job in jobs] == [None, (3, 1)]


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a tenth of the memory count as much as in life."""
    monkeypatch.setattr(memory, "LEAST_BYTES", 50 * _MB)
    monkeypatch.setattr(memory, "FIRST_GUESS_BYTES", 20 * _MB)


@on_linux
def test_processes_together_stay_within_their_memory_and_every_file_is_read(small_files: None) -> None:
    total = held_bytes(os.getpid()) + 200 * _MB
    most = _Most()
    with ReadingPool(4, timeout_s=60, total_bytes=total) as pool:
        # Until one job was seen, several may begin at once, and how far they get before one is stopped is luck.
        assert pool.submit(_hold, 60 * _MB, 1.0).result() == 60 * _MB
        with most:
            jobs = [pool.submit(_hold, 60 * _MB, 0.3) for _ in range(8)]
            assert [job.result() for job in jobs] == [60 * _MB] * 8
    assert 60 * _MB < most.held_bytes < 280 * _MB


@on_linux
def test_a_file_that_alone_needs_more_fails_with_the_numbers_and_the_others_are_read(small_files: None) -> None:
    total = held_bytes(os.getpid()) + 200 * _MB
    most = _Most()
    with ReadingPool(2, timeout_s=60, total_bytes=total) as pool, most:
        small = [pool.submit(_hold, 20 * _MB, 0.1) for _ in range(4)]
        huge = pool.submit(_grow, 20, 20 * _MB, 0.3)
        small += [pool.submit(_hold, 20 * _MB, 0.1) for _ in range(4)]
        with pytest.raises(MedclipError) as caught:
            huge.result()
        assert [job.result() for job in small] == [20 * _MB] * 8
    assert caught.value.reason is Reason.TOO_LARGE
    assert "reading this file alone needs more than 0." in str(caught.value)
    assert most.held_bytes < 300 * _MB


@on_linux
def test_one_allocation_beyond_the_budget_is_refused_before_it_is_filled() -> None:
    with ReadingPool(1, timeout_s=60, total_bytes=2 * LEAST_BYTES) as pool, pytest.raises(MedclipError) as caught:
        pool.submit(bytearray, 2 * LEAST_BYTES).result()
    assert caught.value.reason is Reason.TOO_LARGE
    assert "the 1.0 GB that one reading process may take" in str(caught.value)


@on_linux
def test_a_parent_that_holds_the_whole_budget_reads_files_and_says_so() -> None:
    notes: list[str] = []
    with ReadingPool(3, timeout_s=60, total_bytes=100 * _MB, note=notes.append) as pool:
        jobs = [pool.submit(_hold, 20 * _MB, 0.1) for _ in range(6)]
        assert [job.result() for job in jobs] == [20 * _MB] * 6
    assert len(notes) == 1
    assert "0.1 GB" in notes[0]


@on_linux
def test_a_process_that_keeps_more_than_its_share_is_replaced(small_files: None) -> None:
    with ReadingPool(2, timeout_s=60, total_bytes=held_bytes(os.getpid()) + 250 * _MB) as pool:
        pid = pool.submit(_keep, 150 * _MB).result()
        assert pool.submit(divmod, 7, 2).result() == (3, 1)
        end = time.monotonic() + 10
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
            time.sleep(0.02)
        assert not os.path.exists(f"/proc/{pid}")


@on_linux
def test_the_system_kills_reading_processes_before_the_parent() -> None:
    with ReadingPool(1, timeout_s=60) as pool:
        assert pool.submit(_oom_score).result() >= 800


def test_a_pool_has_the_limits_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(ReadingPool, "__init__", lambda self, *limits: seen.append(limits[:4]))
    monkeypatch.setattr(memory, "machine_memory_bytes", lambda: 10 * 10**9)
    settings = Settings(workers=3, decode_timeout_s=7.0, reader_memory_bytes=5)
    ReadingPool.of(settings)
    ReadingPool.of(settings.on_machine(None, "2GB"), 1)
    assert seen == [(3, 7.0, 5, 6 * 10**9), (1, 7.0, 5, 2 * 10**9)]


class _Refused:
    """A system without memory for so many processes, once it has started those that are allowed."""

    def __init__(self, times: int, *, allowed: int = 0) -> None:
        self.times, self.allowed = times, allowed

    def __call__(self, *limits: Any) -> ReadingProcess:
        self.allowed -= 1
        if self.allowed >= 0:
            return ReadingProcess(*limits)
        self.times -= 1
        if self.times >= 0:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return ReadingProcess(*limits)


class _Most:
    """The most that new children of this process held together while it looked.

    A server of other tests may be a child, too: it has torch.
    """

    def __init__(self) -> None:
        self.held_bytes = 0
        self._before = set(children_of(os.getpid()))
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(0.01):
            children = set(children_of(os.getpid())) - self._before
            self.held_bytes = max(self.held_bytes, sum(held_bytes(pid) for pid in children if _has_begun(pid)))


def _has_begun(pid: int) -> bool:
    """Whether a child is a program of its own yet: until then it has the memory of this process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != Path("/proc/self/cmdline").read_bytes()
    except OSError:
        return False


_kept: list[bytes] = []


def _hold(size: int, seconds: float) -> int:
    held = b"x" * size
    time.sleep(seconds)
    return len(held)


def _grow(steps: int, size: int, seconds: float) -> None:
    held = []
    for _ in range(steps):
        held.append(b"x" * size)
        time.sleep(seconds)


def _keep(size: int) -> int:
    _kept.append(b"x" * size)
    return os.getpid()


def _oom_score() -> int:
    return int(Path("/proc/self/oom_score_adj").read_text())


def _die(deaths: Path, code: int) -> None:
    with deaths.open("a") as file:
        file.write("x")
    if code < 0:
        os.kill(os.getpid(), -code)
        time.sleep(60)
    os._exit(code)


def _die_once(deaths: Path, code: int) -> str:
    if not deaths.exists():
        _die(deaths, code)
    return "read"


def _count_siblings_or_die(deaths: Path, before: list[int]) -> int:
    """Be killed once; then count the other processes of the pool that live."""
    _die_once(deaths, -signal.SIGKILL)
    siblings = set(children_of(os.getppid())) - {os.getpid(), *before}
    return sum(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z" for pid in siblings)


def _count_torch() -> int:
    import sys

    return sum(name.split(".")[0] == "torch" for name in sys.modules)


def _fail_from_drive(log: Path, times: int, number: int, hidden: bool) -> str:
    with log.open("a") as file:
        file.write("x")
    if len(log.read_text()) <= times:
        try:
            raise OSError(number, os.strerror(number))
        except OSError:
            if hidden:
                raise MedclipError(Reason.CORRUPT, "the image is damaged.") from None
            raise
    return "read"


@pytest.mark.parametrize("hidden", [False, True])
def test_what_a_drive_does_not_deliver_is_asked_for_again_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    monkeypatch.setattr(worker, "PAUSES_S", (0.01, 0.01, 0.01))
    notes: list[str] = []
    with ReadingPool(1, timeout_s=60, note=notes.append) as pool:
        jobs = [pool.submit(_fail_from_drive, tmp_path / f"{n}", 2, errno.ESTALE, hidden) for n in range(2)]
        assert [job.result() for job in jobs] == ["read", "read"]
        assert [(job.effort.num_retries, job.effort.worker) for job in jobs] == [(2, "reader 1")] * 2
        assert all(job.effort.seconds > 0 for job in jobs)
    assert len(notes) == 1


def test_a_drive_that_never_delivers_a_file_costs_it_some_attempts_and_then_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "PAUSES_S", (0.01, 0.01, 0.01))
    with ReadingPool(1, timeout_s=60) as pool:
        job = pool.submit(_fail_from_drive, tmp_path / "log", 99, errno.EIO, True)
        with pytest.raises(MedclipError) as caught:
            job.result()
        assert caught.value.reason is Reason.READ_ERROR
        assert ((tmp_path / "log").read_text(), job.effort.num_retries) == ("xxxx", 3)


def test_a_damaged_file_and_one_that_may_not_be_read_are_not_read_again(tmp_path: Path) -> None:
    with ReadingPool(1, timeout_s=60) as pool:
        for number in (errno.EACCES, errno.EINVAL):
            log = tmp_path / str(number)
            with pytest.raises(MedclipError):
                pool.submit(_fail_from_drive, log, 99, number, False).result()
            assert log.read_text() == "x"


def test_on_a_drive_that_is_gone_files_are_not_waited_for_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "PAUSES_S", (0.01,))
    with ReadingPool(1, timeout_s=60) as pool:
        for n in range(6):
            pool.submit(_fail_from_drive, tmp_path / str(n), 99, errno.EIO, False).exception()
        attempts = [len((tmp_path / str(n)).read_text()) for n in range(6)]
        assert attempts == [2, 2, 2, 2, 1, 1]
        assert pool.submit(divmod, 7, 2).result() == (3, 1)
        pool.submit(_fail_from_drive, tmp_path / "later", 99, errno.EIO, False).exception()
        assert (tmp_path / "later").read_text() == "xx"
