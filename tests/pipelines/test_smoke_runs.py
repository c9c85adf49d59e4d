"""Every pipeline has a smoke run, and it ends well when it is started as its README and its first lines say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PIPELINES = sorted(path.parent.name for path in (REPOSITORY / "pipelines").glob("*/run.sh"))
LIMIT_S = 3600


@pytest.mark.parametrize("name", PIPELINES)
def test_the_usage_and_the_readme_name_the_smoke_run(name: str):
    folder = REPOSITORY / "pipelines" / name
    head = [line for line in (folder / "run.sh").read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any(re.search(rf"pipelines/{name}/run\.sh \[?--smoke", line) for line in head)
    assert f"pipelines/{name}/run.sh --smoke" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("name", PIPELINES)
def test_the_smoke_run_ends_well_without_a_path(name: str, shared: Path, tmp_path: Path):
    repository = tmp_path / "repository"  # what it writes by default lies beside the pipelines: here those of a copy
    repository.mkdir()
    shutil.copytree(REPOSITORY / "pipelines", repository / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("medclip", "examples", ".venv"):
        (repository / part).symlink_to(REPOSITORY / part)
    (tmp_path / "shared").symlink_to(shared)
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(
        ["bash", f"pipelines/{name}/run.sh", "--smoke"],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    assert any((repository / "runs").iterdir())
