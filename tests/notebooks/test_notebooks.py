"""Every notebook runs from top to bottom, as a notebook."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# In a process of its own: the kernel listens on local sockets, which tests may not open.
RUN = """
import sys, jupytext, nbclient
notebook = jupytext.read(sys.argv[1])
place = {"metadata": {"path": sys.argv[2]}}
nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
outputs = sum(len(cell.get("outputs", [])) for cell in notebook.cells)
assert outputs, "the notebook shows nothing"
"""


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((REPOSITORY / "notebooks").glob("*.py")), ids=lambda p: p.name)
def test_the_notebook_runs(path: Path, tmp_path: Path):
    env = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY), "JUPYTER_PLATFORM_DIRS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path), str(REPOSITORY)],
        env=env,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
