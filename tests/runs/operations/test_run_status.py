"""What a run says of itself while it goes on, after a stop and at its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import medclip
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.models.model import Model
from medclip.runs.ledger import result_writer
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.operations.run_status import read_pace
from medclip.runs.planning import plan
from medclip.runs.rows import ChunkResult
from medclip.scoring.exam_scores import PROBABILITY_STEP
from tests.kits.scoring import write_png


def test_a_run_is_running_then_stopped_then_finished(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    write_png(root / "a.png", 1)
    (root / "b.png").touch()
    commit, states = Ledger.commit, []

    def stopping(self: Ledger, result: ChunkResult) -> None:
        commit(self, result)
        states.append(medclip.runs.status(out))
        raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "commit", stopping)
    with pytest.raises(KeyboardInterrupt):
        medclip.score(root, out, model=pack, workers=1, modality="xray")
    (running,) = states
    assert (running.state, running.counts["files"], running.num_listed, running.exit_code) == ("running", 2, 2, 5)
    assert (medclip.runs.status(out).state, main(["status", str(out)])) == ("stopped", 4)
    monkeypatch.setattr(Ledger, "commit", commit)
    medclip.score(root, out, model=pack, workers=1, modality="xray")
    capsys.readouterr()
    assert main(["status", str(out), "--json"]) == 3
    status = json.loads(capsys.readouterr().out)
    assert (status["state"], status["scored"], status["failed"]) == ("finished", 1, 1)
    assert status["reasons"] == [{"status": "failed", "reason": "empty_file", "files": 1}]
    assert main(["status", str(out)]) == 3
    assert "1 failed: empty file" in capsys.readouterr().out


def test_a_run_that_goes_on_says_how_fast_and_how_long(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    for n in range(5):
        write_png(root / f"{n}.png", n)
    commit, seen = Ledger.commit, []
    monkeypatch.setattr(plan, "CHUNK_FILES", 1)
    monkeypatch.setattr(result_writer, "_EVERY_S", 0.0)

    def looked_at(self: Ledger, result: ChunkResult) -> tuple[int, int]:
        grown = commit(self, result)
        main(["status", str(out)])
        seen.append((medclip.runs.status(out), capsys.readouterr().out))
        return grown

    monkeypatch.setattr(Ledger, "commit", looked_at)
    medclip.score(root, out, model=pack, workers=1, modality="xray")
    status, text = seen[2]
    assert (status.num_expected, status.counts["files"], status.num_tried_again) == (5, 3, 0)
    assert status.seconds_left == pytest.approx(2 / status.files_per_second)
    assert "files per second; about" in text
    assert seen[-1][0].seconds_left == 0
    ended = medclip.runs.status(out)
    assert (ended.files_per_second, ended.seconds_left, ended.pace) == (None, None, None)
    ((worker, num, seconds),) = ended.workers
    assert (worker, num, seconds > 0) == ("reader 1", 5, True)


def test_attempts_of_all_calls_are_counted(pack: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    write_png(root / "a.png", 1)
    (root / "b.png").touch()
    medclip.score(root, out, model=pack, workers=1, modality="xray")
    for _ in range(2):
        medclip.retry(out)
    with Ledger(out, create=False) as ledger:
        attempts = ledger._db.execute("SELECT name, attempts FROM inputs ORDER BY name").fetchall()
    assert attempts == [("a.png", 1), ("b.png", 3)]
    assert medclip.runs.status(out).num_tried_again == 1


def test_batches_that_memory_did_not_hold_are_computed_in_halves_and_counted(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(6):
        write_png(tmp_path / "in" / f"{n}.png", n)
    options: dict[str, Any] = {"model": pack, "workers": 1, "modality": "xray", "batch_size": 4}
    medclip.score(tmp_path / "in", tmp_path / "whole", **options)
    encode, sizes = Model.encode_image, []

    def narrow(self: Model, images: Any, *, batch_size: int | None = None) -> Any:
        sizes.append(batch_size or self.batch_size)
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode(self, images, batch_size=batch_size)

    monkeypatch.setattr(Model, "encode_image", narrow)
    run = medclip.score(tmp_path / "in", tmp_path / "out", **options)
    assert sorted(sizes) == [2, 2, 4, 4]
    assert medclip.runs.status(tmp_path / "out").num_halved == 2
    assert main(["status", str(tmp_path / "out")]) == 0
    assert "2 batches did not fit into memory" in capsys.readouterr().out
    undivided = medclip.runs.read(tmp_path / "whole").scores.column("probability").to_numpy()
    assert run.scores.column("probability").to_numpy() == pytest.approx(undivided, rel=0, abs=1.01 * PROBABILITY_STEP)


def test_a_pace_is_that_of_the_last_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(result_writer.time, "time", lambda: now[0])
    keeper, moments = result_writer.PaceKeeper(), None
    for minute in range(1, 61):
        now[0] = 60.0 * minute
        moments = keeper.commit(6000 if minute <= 30 else 60) or moments
    files_per_second = read_pace(moments)
    assert files_per_second == pytest.approx(1.0)
    assert len(moments or ()) <= 11
    assert read_pace(None) is read_pace([(1.0, 0)]) is read_pace([(1.0, 0), (1.0, 5)]) is None


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MedclipError) as caught:
            medclip.runs.status(folder)
        assert caught.value.reason is Reason.MISSING_FILE
