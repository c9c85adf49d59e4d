"""The commands `medclip audit verify` and `medclip audit diff`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import medclip
from medclip.cli.main import main
from tests.kits.audit_tables import audit_table


@pytest.fixture
def audited(tmp_path: Path) -> Path:
    """A small audit."""
    out = tmp_path / "audit"
    medclip.audit(audit_table(60), by=["sex"], num_resamples=100, num_permutations=100, out=out)
    return out


def test_a_folder_that_was_changed_ends_with_exit_code_3(audited: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["audit", "verify", str(audited)]) == 0
    assert "✓ page: as it was" in capsys.readouterr().out
    (audited / "report.html").write_text("nothing was found")
    assert main(["audit", "verify", str(audited), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["page"] is False
    assert main(["audit", "verify", str(audited / "no")]) == 2


def test_two_audits_are_compared_in_words_and_as_json(
    audited: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = tmp_path / "other"
    medclip.audit(audit_table(60, seed=1), by=["tube"], num_resamples=100, num_permutations=100, out=other)
    assert main(["audit", "diff", str(audited), str(other)]) == 0
    assert "sex F: shown → not there" in capsys.readouterr().out
    assert main(["audit", "diff", str(audited), str(audited / "audit.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changes"] == []


def test_a_table_may_be_called_anything_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["audit", "nowhere"]) == 2
    assert "there is no such file or folder of scores" in capsys.readouterr().err
