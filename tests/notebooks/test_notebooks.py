"""Every notebook runs from top to bottom, as a notebook.

In CI those run that are written otherwise than when `make executed` last ran them, or whose verbs are; at night all.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from pipelines.docs_site.execute import NOTEBOOKS, ROOT, notebooks, problems_of
from pipelines.docs_site.record import files_of, is_recorded, names_in
from tests.kits.size import is_nightly

MOST_CPU_S = 180
"""A newcomer waits: no notebook takes more than three minutes of one core."""


@pytest.mark.slow
@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.name)
def test_the_notebook_runs_in_three_minutes_without_a_red_box(path: Path):
    """What it shows is kept in build/notebooks, from where the site takes it."""
    if not is_nightly() and is_recorded(path):
        pytest.skip("it ran as it is written, with the verbs of today (docs_site/executed.json); at night all run")
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
def test_every_argument_that_the_notebook_names_is_one_of_the_verb(path: Path):
    named = names_in(path.read_text(encoding="utf-8"))
    verbs = {name: thing for name, thing in named.items() if inspect.isfunction(thing) or inspect.isclass(thing)}
    assert verbs
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and (verb := verbs.get(ast.unparse(node.func))):
            parameters = inspect.signature(verb).parameters
            takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
            lacking = {word.arg for word in node.keywords if word.arg} - parameters.keys()
            assert takes_any or not lacking, f"{path.name}:{node.lineno}: {ast.unparse(node.func)} has no {lacking}"


def test_a_notebook_is_written_with_its_verbs_its_pipelines_and_the_examples():
    files = {path.relative_to(ROOT).as_posix() for path in files_of(NOTEBOOKS / "04_mammography.py")}
    assert {"notebooks/04_mammography.py", "medclip/api/score.py", "examples/sources.csv"} <= files
    assert any(name.startswith("pipelines/mv_mlm/") for name in files)
    assert not any("__pycache__" in name for name in files)


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.name)
def test_the_notebook_tells_a_question_an_answer_and_what_it_does_not_show(path: Path):
    text = path.read_text(encoding="utf-8")
    assert "# ## What this does not show" in text
    assert "not a medical device" in text.replace("\n# ", " ")
    assert text.count("# %% [markdown]") >= 5
    assert path.parent == NOTEBOOKS
