"""Every notebook runs from top to bottom, as a notebook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from pipelines.docs_site.execute import NOTEBOOKS, ROOT, notebooks, problems_of

MOST_CPU_S = 180
"""A newcomer waits: no notebook takes more than three minutes of one core."""


@pytest.mark.slow
@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.name)
def test_the_notebook_runs_in_three_minutes_without_a_red_box(path: Path):
    """What it shows is kept in build/notebooks, from where `make docs` takes it."""
    # In a process of its own: the kernel listens on local sockets, which tests may not open.
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.docs_site.execute", str(path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    executed = json.loads((ROOT / "build" / "notebooks" / f"{path.stem}.ipynb").read_text(encoding="utf-8"))
    assert executed["metadata"]["medclip"]["cpu_seconds"] < MOST_CPU_S


def test_a_red_box_and_a_notebook_that_shows_nothing_are_faults():
    red = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("stream", name="stderr", text="UserWarning: no")])
    fine = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("stream", name="stdout", text="yes")])
    assert list(problems_of(nbformat.v4.new_notebook(cells=[red, fine]))) == ["a red box: UserWarning: no"]
    assert list(problems_of(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell()]))) == [
        "the notebook shows nothing"
    ]
    assert not list(problems_of(nbformat.v4.new_notebook(cells=[fine])))


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.name)
def test_the_notebook_tells_a_question_an_answer_and_what_it_does_not_show(path: Path):
    text = path.read_text(encoding="utf-8")
    assert "# ## What this does not show" in text
    assert "not a medical device" in text.replace("\n# ", " ")
    assert text.count("# %% [markdown]") >= 5
    assert path.parent == NOTEBOOKS
