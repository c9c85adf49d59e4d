"""What a run says of itself while it goes on, after a stop and at its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import medclip
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.runs.ledger.chunk_result import ChunkResult
from medclip.runs.ledger.ledger import Ledger
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
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], told["scored"], told["failed"]) == ("finished", 1, 1)
    assert told["reasons"] == [{"status": "failed", "reason": "empty_file", "files": 1}]
    assert main(["status", str(out)]) == 3
    assert "1 failed: empty file" in capsys.readouterr().out


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MedclipError) as caught:
            medclip.runs.status(folder)
        assert caught.value.reason is Reason.MISSING_FILE
