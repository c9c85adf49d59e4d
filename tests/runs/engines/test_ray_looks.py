"""Files are looked at on the nodes of a cluster as they are here: every job is answered, whatever is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medclip.errors import MedclipError, Reason
from medclip.runs.engines import ray_looks
from medclip.runs.engines.ray_connection import WorkerLostError
from medclip.runs.engines.ray_looks import RayLooks
from medclip.settings import Settings


def double(number: int) -> int:
    """Double a number, and refuse 13."""
    if number == 13:
        raise MedclipError(Reason.CORRUPT, "this is 13.")
    return 2 * number


class _Ray:
    """A cluster of two nodes whose readers work in this process."""

    def __init__(self, *, num_lost: int = 0) -> None:
        self.batches: list[int] = []
        self.num_hired, self._num_lost = 0, num_lost

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 2.0}}] * 2 + [{"Alive": False, "Resources": {}}]

    def remote(self, **_: Any) -> Any:
        def hire(kind: Any) -> Any:
            return SimpleNamespace(remote=lambda *arguments: self._handle(kind(*arguments)))

        return hire

    def _handle(self, reader: Any) -> Any:
        self.num_hired += 1
        return SimpleNamespace(look=SimpleNamespace(remote=lambda jobs: _Ref(reader, jobs)))

    def wait(self, refs: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return refs[:1], refs[1:]

    def get(self, ref: _Ref) -> Any:
        if self._num_lost:
            self._num_lost -= 1
            raise WorkerLostError
        self.batches.append(len(ref.jobs))
        return ref.reader.look(ref.jobs)


class _Ref:
    def __init__(self, reader: Any, jobs: list[Any]) -> None:
        self.reader, self.jobs = reader, jobs


def _on(ray: _Ray, monkeypatch: pytest.MonkeyPatch, witness: Path | None = None) -> RayLooks:
    @contextmanager
    def connected(_: Any) -> Iterator[_Ray]:
        yield ray

    monkeypatch.setattr(ray_looks, "connected", connected)
    return RayLooks(Settings(), 1, witness)


def test_each_job_has_its_own_answer_or_refusal_and_what_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = _Ray()
    with _on(ray, monkeypatch) as looks:
        futures = [looks.submit(double, number) for number in range(40)]
        for number, future in enumerate(futures):
            if number == 13:
                with pytest.raises(MedclipError, match=r"this is 13\."):
                    future.result(timeout=60)
            else:
                assert future.result(timeout=60) == 2 * number
        assert all(future.effort.worker for future in futures)
        assert looks.seconds()["inspect"] > 0
    assert sum(ray.batches) == 40
    assert max(ray.batches) <= ray_looks.BATCH


def test_what_a_lost_reader_had_is_looked_at_by_another_and_each_job_is_answered_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = _Ray(num_lost=3)
    with _on(ray, monkeypatch) as looks:
        futures = [looks.submit(double, number) for number in range(60) if number != 13]
        assert [future.result(timeout=60) for future in futures] == [2 * n for n in range(60) if n != 13]
    assert sum(ray.batches) == 59
    assert ray.num_hired > 2, "another one in the place of a lost one"


def test_readers_that_are_lost_for_good_end_the_run_and_blame_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    with _on(_Ray(num_lost=1000), monkeypatch) as looks, pytest.raises(MedclipError) as error:
        looks.submit(double, 1).result(timeout=60)
    assert "WorkerLostError" in str(error.value)
    with pytest.raises(MedclipError):
        error.value.problem()  # it is the machine's, and no row may say so


@pytest.mark.parametrize("what", ["nodes", "wait"])
def test_a_cluster_whose_head_is_gone_ends_the_run_and_nobody_waits_for_ever(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = _Ray()

    def gone(*_: Any, **__: Any) -> Any:
        raise ConnectionError

    setattr(ray, what, gone)
    with _on(ray, monkeypatch) as looks:
        futures = [looks.submit(double, number) for number in range(40)]
        for future in futures:
            with pytest.raises(MedclipError, match=r"were lost while they looked at files \(ConnectionError\)"):
                future.result(timeout=60)
        with pytest.raises(MedclipError, match="were lost"):
            looks.submit(double, 1).result(timeout=60)


def test_a_node_that_does_not_see_the_files_ends_the_run_and_calls_none_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    looks = _on(_Ray(), monkeypatch, tmp_path / "spool" / ".0123")
    with looks, pytest.raises(MedclipError, match="does not see the files of this run") as error:
        looks.submit(double, 1).result(timeout=60)
    assert error.value.reason is Reason.WRONG_USE
    assert str(tmp_path / "spool") == str(error.value.where)
    with _on(_Ray(), monkeypatch, tmp_path) as looks:
        assert looks.submit(double, 1).result(timeout=60) == 2


def test_a_run_that_looks_at_nothing_connects_to_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def connected(_: Any) -> Any:
        raise AssertionError("a cluster was asked for")

    monkeypatch.setattr(ray_looks, "connected", connected)
    with RayLooks(Settings(), None) as looks:
        assert looks.seconds() == {"inspect": 0.0}
