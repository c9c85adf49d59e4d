"""Kills without warning at any moment of a run: nothing half is there, nothing is lost, and the end is the same."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from medclip.adapters.registry import preprocessing_of
from medclip.api.score import score
from medclip.errors import MedclipError, Reason
from medclip.models.inputs.signal_input import SignalInput
from medclip.runs.ledger.ledger import FILE_NAME, Ledger
from medclip.runs.operations.run_status import read_status
from medclip.settings import ReadPolicy
from tests.kits.kills import Forks, children_of, run_anew
from tests.kits.scoring import STUDY_UID, digests, every_way, make_pack, write_dicom, write_png
from tests.kits.signal_shards import write_records
from tests.kits.size import sized
from tests.kits.volumes import positions_of, write_series

KILLS, STARTS = sized(30, least=6), sized(4)
"""Kills in all, and those of them that may come while modules are imported."""
WORKER_KILLS = sized(10, least=3)
"""Kills of reading processes."""
TABLES = ("files.parquet", "scores.parquet")
_MOMENTS = {
    "register": 9,
    "looked_at": 9,
    "tie": 9,
    "settle": 1,
    "commit": 14,
    "number": 1,
    "remember": 5,
    "replace": 4,
}
"""Functions at which a run is killed, and how many calls of each there may be before the end."""

_SETUP = """
from medclip.runs.planning import look
from medclip.runs.planning import listing
from medclip.runs.planning import plan
from medclip.runs.units import chunk
from medclip.runs.ledger import ledger
listing.WINDOW_FILES = look.WINDOW_FILES = 4
listing.CUT_FILES, plan.CHUNK_FILES, chunk.READ_AHEAD = 5, 2, 3
from medclip.api.score import ScoringOptions, run_score

def let_die(owner, name, after, left):  # at one of its calls: before its work, or as soon as that is done
    work = getattr(owner, name)
    def work_or_die(*values, **named):
        nonlocal left
        left -= 1
        if left == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = work(*values, **named)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, work_or_die)

def run(root, out, pack, moment="", calls="0", options="{}"):
    if moment:
        name, when = moment.split()
        let_die(os if name == "replace" else ledger.Ledger, name, when == "after", int(calls))
    asked = json.loads(options)
    again = asked.pop("retry", None)
    given = {"model": pack, "workers": 2, "min_confidence": 0.0, "prompt": ["a fracture"], **asked}
    run_score(ScoringOptions(root, out, **given), again)
"""
_IMPORTS = """
import medclip.models.packs.pack, medclip.reports.score.report, medclip.scoring.scoring_run
import open_clip, pyarrow.parquet, torch
"""


@pytest.fixture(scope="module")
def seeing_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pack that reads volumes, too."""
    return make_pack(tmp_path_factory.mktemp("packs") / "seeing", every_way())


def hospital(root: Path) -> Path:
    """Make a folder with scattered studies, two CT series (one in a folder for each slice), films, broken files."""
    for n in range(6):
        write_dicom(root / f"{n}" / "x.dcm", n, study_uid=f"{STUDY_UID}.{n % 2}")
    voxels = np.random.default_rng(3).integers(-500, 500, (7, 40, 30)).astype(np.int16)
    for name, folder in (("8", "ct"), ("9", "slices")):
        uids: dict[str, Any] = {"StudyInstanceUID": f"{STUDY_UID}.{name}", "SeriesInstanceUID": f"{STUDY_UID}.{name}.1"}
        paths = write_series(root / folder, voxels, positions_of(7), **uids)
        if folder == "slices":
            for path in paths:
                path.with_suffix("").mkdir()
                path.rename(path.with_suffix("") / "slice")
    for n in range(4):
        write_dicom(root / "mg" / f"{n}.dcm", 10 + n, modality="MG", study_uid=f"{STUDY_UID}.7")
    for n in range(6):
        write_png(root / "png" / f"{n}.png", 30 + n)
    write_dicom(root / "png" / "z.dcm", 40, study_uid=f"{STUDY_UID}.1")
    (root / "2" / "empty.dcm").write_bytes(b"")
    (root / "5" / "gone.dcm").symlink_to("archived.dcm")
    cut = write_dicom(root / "3" / "cut.dcm", 41, study_uid=f"{STUDY_UID}.1")
    cut.write_bytes(cut.read_bytes()[:-2000])
    (root / "notes.txt").write_text("of no interest\n")
    return root


class Runner(Forks):
    """Scoring runs with one pack that kill themselves."""

    def __init__(self, log: Path, pack: Path, setup: str = "") -> None:
        super().__init__(_SETUP + _IMPORTS + setup, log)
        self.pack = pack

    def score(
        self, root: Path, out: Path, moment: str = "", calls: int = 0, seconds: float = 0, **options: Any
    ) -> bool:
        """Run until the end, a moment or for some seconds; return whether it ended."""
        return self.run(root, out, self.pack, moment, calls, json.dumps(options), seconds=seconds)


@pytest.fixture
def runner(seeing_pack: Path, tmp_path: Path) -> Iterator[Runner]:
    """Starts runs."""
    with Runner(tmp_path / "log.txt", seeing_pack) as runner:
        yield runner


def assert_nothing_is_half_done(out: Path, *, was_finished: bool = False) -> None:
    """Look at a folder as whoever comes after a kill would."""
    if not (out / FILE_NAME).exists():
        assert not list(out.glob("*.parquet"))
        return
    if not (out / FILE_NAME).stat().st_size:  # killed before its first commit
        with pytest.raises(MedclipError) as caught:
            read_status(out)
        assert caught.value.reason is Reason.MISSING_FILE
        return
    status = read_status(out)
    if status.state == "finished":  # killed behind the last commit
        assert all((out / name).exists() for name in (*TABLES, "run.json", "report.html"))
    else:
        assert (status.state, status.exit_code) == ("stopped", 4)
    with Ledger(out, create=False) as ledger:
        assert ledger.counts()["files"] <= ledger.num_listed()
    for name in TABLES:
        if (out / name).exists():
            table = pq.read_table(out / name)
            assert name != TABLES[0] or was_finished or table.num_rows == status.num_listed


@pytest.mark.slow
def test_kills_at_any_moment_change_no_byte(runner: Runner, tmp_path: Path) -> None:
    root = hospital(tmp_path / "in")
    assert runner.score(root, tmp_path / "warm")
    began = time.monotonic()
    assert runner.score(root, tmp_path / "whole")
    seconds = time.monotonic() - began
    statuses = Counter(pq.read_table(tmp_path / "whole" / TABLES[0]).column("status").to_pylist())
    assert statuses == {"scored": 31, "failed": 3, "skipped": 1}
    score(root, tmp_path / "large", model=runner.pack, workers=1, min_confidence=0.0, prompt=["a fracture"])
    assert digests(tmp_path / "large") == digests(tmp_path / "whole")  # also with windows that hold all of it
    rng = random.Random(11)
    killed = Counter[str]()
    out, num_ended = tmp_path / "out0", 0
    while killed.total() < KILLS:
        if killed.total() < STARTS:
            moment = "start"
            has_ended = run_anew(_SETUP, root, out, runner.pack, seconds=rng.uniform(0.0, 3.0))
        elif killed.total() % 2:
            moment = "timer"
            has_ended = runner.score(root, out, seconds=max(0.01, rng.uniform(0.0, 0.9) * seconds))
        else:
            name = rng.choice(list(_MOMENTS))
            moment = f"{name} {rng.choice(['before', 'after'])}"
            has_ended = runner.score(root, out, moment, rng.randint(1, _MOMENTS[name]))
        if has_ended:
            assert digests(out) == digests(tmp_path / "whole")
            num_ended += 1
            out = tmp_path / f"out{num_ended}"
        else:
            killed[moment] += 1
            assert_nothing_is_half_done(out)
    assert runner.score(root, out)
    assert digests(out) == digests(tmp_path / "whole")
    assert killed["timer"] >= KILLS // 6


@pytest.mark.slow
def test_kills_while_a_finished_run_grows_and_tries_again_change_no_row(runner: Runner, tmp_path: Path) -> None:
    root, out = hospital(tmp_path / "in"), tmp_path / "out"
    assert runner.score(root, out)
    write_dicom(root / "3" / "cut.dcm", 41, study_uid=f"{STUDY_UID}.1")
    write_dicom(root / "1" / "y.dcm", 50, study_uid=f"{STUDY_UID}.0")
    write_dicom(root / "new" / "z.dcm", 51, study_uid=f"{STUDY_UID}.77")
    for moment, call in (("register", 1), ("tie", 1), ("looked_at", 2), ("commit", 2), ("replace", 1)):
        assert not runner.score(root, out, f"{moment} after", call, add=True, retry="")
        assert_nothing_is_half_done(out, was_finished=True)
        assert read_status(out).state == "stopped"
    assert runner.score(root, out)
    assert runner.score(root, tmp_path / "whole")
    for name in TABLES:
        assert pq.read_table(out / name).equals(pq.read_table(tmp_path / "whole" / name))


@pytest.mark.slow
def test_kills_of_a_watch_while_files_get_their_real_names_change_no_row(seeing_pack: Path, tmp_path: Path) -> None:
    root, out = hospital(tmp_path / "in"), tmp_path / "out"
    setup = """
from medclip.api.watch import watch
def run_score(asked, again):
    watch(asked.path, asked.out, settle_s=0.05, once=True, model=asked.model, workers=2, min_confidence=0.0,
          prompt=asked.prompt)
"""
    contents = []
    for n in range(
        9
    ):  # films of two studies that are there, and of one that is not; the night before read half of them
        draft = write_dicom(root / "late" / f"{n}.dcm.part", 60 + n, study_uid=f"{STUDY_UID}.{n % 3}")
        contents.append(draft.read_bytes())
        draft.write_bytes(contents[-1][: 1000 + 500 * n])
    with Runner(tmp_path / "night.txt", seeing_pack) as runner:
        assert runner.score(root, out)
    moments = ("register after", "settle before", "settle after", "looked_at after", "tie after", "commit before")
    with Runner(tmp_path / "log.txt", seeing_pack, setup) as runner:
        for n, moment in enumerate((*moments, "commit after", "number before", "replace after")):
            draft = root / "late" / f"{n}.dcm.part"
            draft.write_bytes(contents[n])
            draft.rename(root / "late" / f"{n}.dcm" if n % 2 else root / "png" / f"{n}.sent")
            assert not runner.score(root, out, moment, 1)
            assert_nothing_is_half_done(out, was_finished=True)
            assert read_status(out).state == "stopped"
        assert runner.score(root, out)
    with Runner(tmp_path / "plain.txt", seeing_pack) as runner:
        assert runner.score(root, tmp_path / "whole")
    files = pq.read_table(out / TABLES[0])
    assert sum("late" in path or path.endswith("sent") for path in files.column("path").to_pylist()) == 9
    for name in TABLES:
        assert pq.read_table(out / name).equals(pq.read_table(tmp_path / "whole" / name))


@pytest.mark.slow
def test_kills_of_a_run_that_writes_to_a_network_drive_change_no_byte(seeing_pack: Path, tmp_path: Path) -> None:
    root, drive, table = hospital(tmp_path / "in"), tmp_path / "drive", tmp_path / "mountinfo"
    table.write_text(f"1 0 8:1 / / rw - ext4 x rw\n2 1 0:1 / {drive.resolve()} rw - nfs4 x rw\n")
    setup = f"\nfrom pathlib import Path\nfrom medclip.files import locks\nlocks.MOUNTS = Path({str(table)!r})\n"
    with Runner(tmp_path / "log.txt", seeing_pack, setup) as runner:
        assert runner.score(root, tmp_path / "whole")
        for moment, call in (
            ("register after", 2),
            ("looked_at before", 3),
            ("commit before", 2),
            ("commit after", 3),
            ("number after", 1),
            ("replace after", 1),
        ):
            assert not runner.score(root, drive / "out", moment, call)
            assert not list(drive.rglob("*-wal"))
        assert runner.score(root, drive / "out")
    assert (drive / "out" / ".medclip-lock").exists()
    assert digests(drive / "out") == digests(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the processes of a run are found on Linux only")
@pytest.mark.usefixtures("real_readers")  # a run with others is over before it can be hit
def test_reading_processes_that_are_killed_at_random_change_no_byte(pack: Path, tmp_path: Path) -> None:
    """A file whose process is killed three times fails: each run loses two, so that this cannot be."""
    for n in range(60):
        write_png(tmp_path / "in" / f"{n // 10}" / f"{n}.png", n)
    options: dict[str, Any] = {"model": pack, "modality": "xray", "workers": 2}
    score(tmp_path / "in", tmp_path / "whole", **options)
    rng, killed, number = random.Random(7), 0, 0
    while killed < WORKER_KILLS:
        out, before = tmp_path / f"out{number}", set(children_of(os.getpid()))
        number += 1
        with ThreadPoolExecutor(1) as thread:
            run = thread.submit(score, tmp_path / "in", out, **options)
            victims = set[int]()
            while not run.done():
                time.sleep(rng.uniform(0.05, 0.6))
                alive = [pid for pid in children_of(os.getpid()) if pid not in before | victims]
                if alive and len(victims) < 2:
                    victim = rng.choice(alive)
                    victims.add(victim)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                        killed += 1
            assert run.result().counts["failed"] == 0
        assert digests(out) == digests(tmp_path / "whole")
        assert number <= 3 * WORKER_KILLS


@pytest.mark.slow
def test_of_two_runs_that_start_at_once_one_is_refused_and_one_ends(seeing_pack: Path, tmp_path: Path) -> None:
    root, out = hospital(tmp_path / "in"), tmp_path / "out"
    options = ["--out", str(out), "--model", str(seeing_pack)]
    command = [sys.executable, "-m", "medclip.cli.main", "score", str(root), *options]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    texts = [process.communicate(timeout=120)[1] for process in both]
    (refused,) = [text for process, text in zip(both, texts, strict=True) if process.returncode == 5]
    assert "another medclip is writing to this folder" in refused
    assert sorted(process.returncode for process in both) == [3, 5]


@pytest.mark.nightly
def test_kills_of_a_run_over_ecg_records_change_no_byte(tmp_path: Path) -> None:
    signal_input = SignalInput(sampling_hz=100, seconds=4)
    ways = {"ecg:signal": preprocessing_of("ecg:signal", ReadPolicy(ecg=signal_input.options))}
    pack = make_pack(tmp_path / "pack", ways, signal=signal_input, modalities=["ecg"], tasks={})
    root = tmp_path / "in"
    for ward in "abc":
        write_records(root / ward, 4, missing=[1])
    (root / "b" / "r002.dat").write_bytes((root / "b" / "r002.dat").read_bytes()[:-200])
    (root / "c" / "r003.dat").unlink()
    rng = random.Random(5)
    with Runner(tmp_path / "log.txt", pack) as runner:
        assert runner.score(root, tmp_path / "whole")
        statuses = Counter(pq.read_table(tmp_path / "whole" / TABLES[0]).column("status").to_pylist())
        assert statuses == {"scored": 20, "failed": 3}
        out, killed = tmp_path / "out", 0
        for name in ("register", "looked_at", "commit", "replace"):
            when = rng.choice(["before", "after"])
            killed += not runner.score(root, out, f"{name} {when}", rng.randint(1, 3))
            assert_nothing_is_half_done(out)
        assert runner.score(root, out)
        assert digests(out) == digests(tmp_path / "whole")
        assert killed >= 2
