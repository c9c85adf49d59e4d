"""Runs on Ray: the tables of a run in this process, whatever is lost on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError, Reason
from medclip.runs.engines import ray_cluster
from medclip.runs.engines.ray_cluster import _Crew, _room, choose_engine
from medclip.runs.engines.ray_connection import WorkerLostError
from medclip.runs.engines.ray_host import LOSSES
from medclip.runs.planning.plan import Chunk, Plan, PlannedFile
from medclip.runs.rows import DONE, DONE_FOR_GOOD
from medclip.sample import FileRef
from medclip.settings import Settings
from tests.kits.scoring import STUDY_UID, digests, write_dicom, write_png

if TYPE_CHECKING:
    from medclip.runs.engines.engine import WorkerPlan


class _Ray:
    """A cluster of nothing: a chunk is "computed" when it is fetched, and some workers die of some chunks."""

    def __init__(self, seed: int, deadly: dict[int, int]) -> None:
        self._chance, self._deadly = random.Random(seed), deadly
        self.calls: list[tuple[str, int]] = []
        """What was submitted and what came back, by the number of a chunk's first file."""

    def worker(self) -> Any:
        handle = SimpleNamespace(dead=False)
        handle.start = SimpleNamespace(remote=lambda: _Ref(handle, None))
        handle.compute = SimpleNamespace(remote=lambda chunk: self._submit(handle, chunk))
        return handle

    def _submit(self, handle: Any, chunk: Chunk) -> _Ref:
        self.calls.append(("submit", chunk.plan.files[0].id))
        return _Ref(handle, chunk)

    def wait(self, refs: list[_Ref], **_: Any) -> tuple[list[_Ref], list[_Ref]]:
        return [self._chance.choice(refs)], []

    def get(self, ref: _Ref) -> Any:
        if ref.chunk is not None and not ref.handle.dead:
            first = ref.chunk.plan.files[0].id
            if self._deadly.get(first, 0):
                self._deadly[first] -= 1
                ref.handle.dead = True
        if ref.handle.dead:
            raise WorkerLostError
        if ref.chunk is not None:
            self.calls.append(("done", ref.chunk.plan.files[0].id))
        return ref.chunk


class _Ref:
    def __init__(self, handle: Any, chunk: Chunk | None) -> None:
        self.handle, self.chunk = handle, chunk


def _chunks(num_early: int, num_late: int) -> list[Chunk]:
    files = [PlannedFile(n, FileRef(Path(f"{n}"), f"{n}"), None, None, None) for n in range(num_early + num_late)]
    early, late = Plan(tuple(files), (), (), state=DONE), Plan(tuple(files), (), (), state=DONE_FOR_GOOD)
    return [Chunk(early if n < num_early else late, (n,)) for n in range(num_early + num_late)]


def _work(crew: _Crew, chunks: list[Chunk]) -> tuple[list[int], list[int]]:
    """Return the chunks whose rows were committed, by their files, and those that failed."""
    failed: list[int] = []
    committed: list[int] = []

    def fail(chunk: Chunk) -> Any:
        failed.append(chunk.plan.files[0].id)
        return chunk

    commit: Callable[[Any], None] = lambda result: committed.append(result.plan.files[0].id)  # noqa: E731
    crew.work(iter(chunks), commit, fail)
    return committed, failed


@given(
    st.integers(0, 12),
    st.integers(0, 6),
    st.integers(1, 4),
    st.integers(0, 99),
    st.dictionaries(st.integers(0, 17), st.integers(1, 4), max_size=3),
)
def test_every_chunk_is_committed_once_whoever_is_lost_and_fails_only_after_three_workers(
    num_early: int, num_late: int, size: int, seed: int, deadly: dict[int, int]
) -> None:
    ray = _Ray(seed, dict(deadly))
    committed, failed = _work(_Crew(ray, ray.worker, size), _chunks(num_early, num_late))
    assert sorted(committed) == list(range(num_early + num_late))
    assert set(failed) <= {number for number, times in deadly.items() if times >= 3}
    assert {n for n, times in deadly.items() if times >= 3 and n < num_early + num_late} <= set(failed)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 4), st.integers(0, 99))
def test_studies_that_waited_are_computed_after_all_others_are_committed(
    num_early: int, num_late: int, size: int, seed: int
) -> None:
    ray = _Ray(seed, {0: 1})
    _work(_Crew(ray, ray.worker, size), _chunks(num_early, num_late))
    late = [at for at, (what, n) in enumerate(ray.calls) if what == "submit" and n >= num_early]
    early = [at for at, (what, n) in enumerate(ray.calls) if what == "done" and n < num_early]
    assert max(early) < min(late)


def test_all_that_ray_raises_of_a_worker_that_is_gone_counts_as_a_loss_and_a_fault_of_ours_does_not() -> None:
    exceptions = pytest.importorskip("ray.exceptions")
    known = tuple(getattr(exceptions, name) for name in LOSSES)
    gone = (exceptions.ActorDiedError, exceptions.ActorUnavailableError, exceptions.OwnerDiedError)
    for kind in (*gone, exceptions.OutOfMemoryError, exceptions.NodeDiedError, exceptions.ObjectFetchTimedOutError):
        assert issubclass(kind, known), kind
    assert not issubclass(exceptions.RayTaskError, known)


def test_a_cluster_that_loses_every_worker_ends_the_run_instead_of_trying_for_ever() -> None:
    ray = _Ray(0, dict.fromkeys(range(40), 9))
    with pytest.raises(MedclipError, match="workers of the Ray cluster were lost") as error:
        _work(_Crew(ray, ray.worker, 2), _chunks(40, 0))
    assert error.value.reason is Reason.OUT_OF_MEMORY


def test_a_worker_that_cannot_be_what_the_plan_says_ends_the_run_with_its_reason() -> None:
    refusal = MedclipError(Reason.WRONG_USE, "a worker of the cluster has medclip 0.1, and the run is one of 0.2.")
    ray = _Ray(0, {})
    ray.get = lambda ref: refusal
    with pytest.raises(MedclipError, match=r"has medclip 0\.1"):
        _work(_Crew(ray, ray.worker, 1), _chunks(3, 0))


@pytest.mark.parametrize(
    ("asked", "share", "bytes_of_each"),
    [
        (12 * 10**9, 3, 4 * 10**9),
        (12 * 10**9, 1, 12 * 10**9),
        (None, 4, 2 * 10**9),  # of the 8 GB that the node is said to have room for
        (300 * 10**6, 8, 10**8),  # never less than what any reading takes
    ],
)
def test_workers_that_share_a_node_share_its_memory_and_its_cores(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, share: int, bytes_of_each: int
) -> None:
    begun: list[tuple[Settings, int]] = []
    monkeypatch.setattr(ray_cluster, "budget_bytes", lambda wanted: wanted or 8 * 10**9)
    monkeypatch.setattr(ray_cluster, "num_encoders", lambda: 8)
    monkeypatch.setattr(ray_cluster, "torch_threads", lambda _: nullcontext())
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(ray_cluster.ReadingPool, "of", lambda settings: settings)

    def context(model: Any, pool: Any, threads: Any, num_threads: int, progress: Any) -> str:
        begun.append((pool, num_threads))
        threads.shutdown()
        return f"context of {model}"

    plan = SimpleNamespace(settings=Settings(memory_bytes=asked), load=lambda: "a model", context=context)
    worker = ray_cluster.ChunkWorker(cast("WorkerPlan", plan), share, None)
    assert worker.start() is None
    ((settings, num_threads),) = begun
    assert settings.memory_bytes == bytes_of_each
    assert (settings.workers, num_threads) == (8 // share, 8 // share)
    worker = ray_cluster.ChunkWorker(cast("WorkerPlan", plan), share, 5)
    worker.start()
    assert begun[1][0].workers == 5


def test_where_files_have_no_room_no_chunk_is_begun_beside_another() -> None:
    ray = _Ray(0, {})
    is_full = [True]
    crew = _Crew(ray, ray.worker, 3, lambda: is_full[0])
    committed = []

    def commit(result: Any) -> None:
        committed.append(result.plan.files[0].id)
        is_full[0] = len(committed) < 4

    crew.work(iter(_chunks(12, 0)), commit, lambda chunk: chunk)
    assert ray.calls[:8] == [(what, n) for n in range(4) for what in ("submit", "done")]
    assert [what for what, _ in ray.calls[8:12]] == ["submit"] * 4
    assert sorted(committed) == list(range(12))


def test_a_run_that_gets_no_room_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "START_S", 0.0)
    ray = _Ray(0, {})
    ray.wait = lambda refs, **_: ([], refs)
    with pytest.raises(MedclipError, match="no room for a worker") as error:
        _work(_Crew(ray, ray.worker, 1), _chunks(3, 0))
    assert error.value.reason is Reason.BUSY


@pytest.mark.parametrize(
    ("nodes", "gpus", "expected"),
    [
        ([{"CPU": 2.0}, {"CPU": 64.0, "GPU": 4.0}], 0, (2, 4)),
        ([{"CPU": 2.0}, {"CPU": 64.0, "GPU": 4.0}], 1, (1, 4)),
        ([{"CPU": 0.5}], 0, (1, 0)),
    ],
)
def test_workers_are_counted_by_the_nodes_that_can_hold_one(
    nodes: list[dict[str, float]], gpus: int, expected: tuple[int, int]
) -> None:
    assert _room(_cluster_of(nodes), gpus) == expected


@pytest.mark.parametrize(("nodes", "gpus"), [([{"memory": 9.0}], 0), ([{"CPU": 0.25}], 0), ([{"CPU": 8.0}], 1)])
def test_a_cluster_that_cannot_hold_a_worker_is_refused_before_the_run(
    nodes: list[dict[str, float]], gpus: int
) -> None:
    with pytest.raises(MedclipError, match=r"no node of the Ray cluster can hold a worker, which asks for 0\.5 CPU"):
        _room(_cluster_of(nodes), gpus)


def _cluster_of(nodes: list[dict[str, float]]) -> Any:
    return SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": node} for node in nodes])


@pytest.mark.parametrize("engine", ["rai", "ray:0", "ray:x", "ray:", "local:2", ""])
def test_an_engine_that_there_is_not_is_refused(engine: str) -> None:
    with pytest.raises(MedclipError, match="a run has the engine local, ray or ray:N"):
        choose_engine(engine)


_RUN = """
import json, os, sys, threading, time
from medclip.api.embed import embed
from medclip.api.score import score
from medclip.progress import Silent

class Said(Silent):
    def note(self, sentence):
        print(sentence, flush=True)
    def overall(self, *numbers):
        print("rows", *numbers, flush=True)

verb, root, out, pack, engine = sys.argv[1:6]
run = {"score": score, "embed": embed}[verb](
    root, out, model=pack, min_confidence=0.0, engine=engine, progress=Said(), table=sys.argv[6] or None)
print("counts", json.dumps(run.counts), flush=True)
"""


_TWO_NODES = """
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
second = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
print("address", cluster.address, flush=True)
input()
cluster.remove_node(second, allow_graceful=False)
print("killed", flush=True)
input()
cluster.shutdown()
"""


def _start(
    verb: str, root: Path, out: Path, pack: Path, engine: str, table: str = "", address: str = ""
) -> subprocess.Popen[str]:
    words = [sys.executable, "-W", "error", "-c", _RUN, verb, str(root), str(out), str(pack), engine, table]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_ADDRESS": address} if address else {}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def _finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err[-3000:]
    return out


def _first_rows(process: subprocess.Popen[str]) -> int:
    """Return how many rows a run has once it has any."""
    assert process.stdout is not None
    return next(rows for line in process.stdout if line.startswith("rows") and (rows := int(line.split()[1])))


def _workers_below(pid: int) -> list[int]:
    """Return the processes of Ray's workers that a program has started."""
    parents: dict[int, int] = {}
    titles: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                titles[int(entry.name)] = (entry / "cmdline").read_text(errors="replace")
                status = (entry / "status").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(status.split("PPid:")[1].split()[0])

    def is_below(child: int) -> bool:
        while child in parents and child != pid:
            child = parents[child]
        return child == pid

    return [child for child, title in titles.items() if title.startswith("ray::ChunkWorker") and is_below(child)]


def _hospital(root: Path) -> Path:
    """Make a folder with studies that lie scattered, files that nobody can read, and a few hundred films."""
    for n in range(240):
        write_dicom(root / f"{n % 6}" / f"{n}.dcm", n, study_uid=f"{STUDY_UID}.{n // 2}")
    write_png(root / "late.png", 999)
    (root / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"xx")
    return root


@pytest.mark.slow
def test_a_run_on_ray_writes_the_bytes_of_a_run_here_though_a_worker_is_killed(pack: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    root = _hospital(tmp_path / "studies")
    _finish(_start("score", root, tmp_path / "here", pack, "local"))
    process = _start("score", root, tmp_path / "there", pack, "ray:2")
    assert process.stdout is not None
    assert "2 workers, 1 node" in next(line for line in process.stdout if "Computing on Ray" in line)
    num_rows = _first_rows(process)
    assert 0 < num_rows < 240
    victims = _workers_below(process.pid)
    assert len(victims) == 2
    os.kill(victims[0], signal.SIGKILL)
    assert json.loads(_finish(process).split("counts ")[1])["files"] == 242
    assert digests(tmp_path / "there") == digests(tmp_path / "here")


@pytest.mark.nightly
def test_a_run_on_ray_of_which_a_whole_node_is_killed_ends_in_the_same_bytes(pack: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    root = _hospital(tmp_path / "studies")
    _finish(_start("score", root, tmp_path / "here", pack, "local"))
    with subprocess.Popen(
        [sys.executable, "-c", _TWO_NODES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
    ) as nodes:
        assert nodes.stdin is not None
        assert nodes.stdout is not None
        address = next(line for line in nodes.stdout if line.startswith("address")).split()[1]
        process = _start("score", root, tmp_path / "there", pack, "ray:2", address=address)
        assert process.stdout is not None
        assert "2 workers, 2 nodes" in next(line for line in process.stdout if "Computing on Ray" in line)
        num_rows = _first_rows(process)
        assert 0 < num_rows < 240
        print(file=nodes.stdin, flush=True)
        assert next(line for line in nodes.stdout if line.startswith("killed"))
        assert process.poll() is None
        assert json.loads(_finish(process).split("counts ")[1])["files"] == 242
        print(file=nodes.stdin, flush=True)
    assert digests(tmp_path / "there") == digests(tmp_path / "here")


@pytest.mark.nightly
def test_a_run_on_ray_that_was_killed_goes_on_with_either_engine_to_the_same_bytes(pack: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    root = _hospital(tmp_path / "studies")
    _finish(_start("embed", root, tmp_path / "here", pack, "local"))
    process = _start("embed", root, tmp_path / "there", pack, "ray:2")
    assert process.stdout is not None
    _first_rows(process)
    workers = _workers_below(process.pid)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60  # workers end with their driver
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    _finish(_start("embed", root, tmp_path / "there", pack, "local"))
    names = sorted(path.name for path in (tmp_path / "here").iterdir() if not path.name.startswith("ledger"))
    for name in names:
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name


@pytest.mark.slow
def test_the_folder_of_our_own_cluster_is_shut_to_others_though_ray_opens_its_own(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    lines = (
        "import pathlib, tempfile",
        "from medclip.runs.engines.ray_connection import connected",
        f"tempfile.tempdir = {tempfile.gettempdir()!r}",
        "places = lambda: set(pathlib.Path(tempfile.tempdir).glob('medclip-ray-*'))",
        "before = places()",
        "with connected():",
        "    (place,) = places() - before",
        "    print('mode', oct(place.stat().st_mode & 0o777))",
    )
    environment = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, env=environment)
    assert "mode 0o700" in done.stdout, done.stderr[-2000:]
