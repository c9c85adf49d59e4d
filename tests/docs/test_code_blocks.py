"""Every ```bash and ```python block of README.md and docs/ runs, page by page, in a folder with the examples in it.

An HTML comment on the line before a fence changes what is expected, and shows on no rendered page:
`<!-- exit 3 -->` another exit code, `<!-- no-run: reason -->` the block is not run. Blocks of a page run in order and
share the folder. The network is closed while they run. A figure that its page says its commands give is compared with
what they wrote (`tests/kits/figures.py`), on one thread and on two.

README and the tutorials, which a newcomer types, run in programs of their own; the other pages in forks of one that has
imported the library (`tests/kits/loaded_python.py`), if they are written otherwise than when `make executed` last ran
them, or their verbs are. At night (MEDCLIP_NIGHTLY=1) all run, and in programs of their own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.docs_site.record import files_of, is_recorded
from tests.kits.figures import figures
from tests.kits.size import is_nightly

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"(?:^[ ]*<!-- (?P<note>(?:exit|no-run)[^>]*?) -->\n)?"
    r"^(?P<indent>[ ]*)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```",
    re.M | re.S,
)
MAX_NOT_RUN = 8
TYPED_BY_NEWCOMERS = [REPOSITORY / "README.md", *(REPOSITORY / "docs" / "tutorials").glob("*.md")]

# Loaded by every Python of a block: a look-up or connection beyond this machine ends it.
CLOSED_NETWORK = """
import sys
def _closed(event, args):
    if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(args[1], tuple)):
        raise RuntimeError("a documented command asked for the network")
sys.addaudithook(_closed)
"""


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    body: str
    exit_code: int
    skip: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        note = match["note"] or ""
        body = "".join(line.removeprefix(match["indent"]) for line in match["body"].splitlines(keepends=True))
        code = int(note.split()[1]) if note.startswith("exit") else 0
        skip = note.partition(":")[2].strip() if note.startswith("no-run") else ""
        line = text[: match.start("info")].count("\n") + 1
        found.append(Block(line, match["info"].split(" ")[0], body, code, skip))
    return found


def runnable(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language in ("bash", "python") and not block.skip]


@pytest.fixture
def workplace(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copytree(REPOSITORY / "examples", folder / "examples")
    for name in ("medclip", "pipelines", "pyproject.toml"):
        (folder / name).symlink_to(REPOSITORY / name)
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(CLOSED_NETWORK)
    home = tmp_path / "home"
    home.mkdir()
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MEDCLIP", "HF_", "TRANSFORMERS_"))}
    env |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}",
        "PYTHONPATH": f"{site}{os.pathsep}{REPOSITORY}",
        "HOME": str(home),
        "COLUMNS": "120",
    }
    return folder, env


def with_threads(page: Path) -> list[int]:
    """Return on how many threads a page runs: one with figures on one, and on two."""
    return [1, 2] if figures(page.read_text(encoding="utf-8")) else [1]


def name_of(part: Path | int) -> str:
    return str(part) if isinstance(part, int) else part.relative_to(REPOSITORY).as_posix()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "threads"), [(p, n) for p in PAGES if runnable(p) for n in with_threads(p)], ids=name_of
)
def test_every_code_block_of_the_page_runs_and_gives_the_figures_that_it_states(
    page: Path, threads: int, workplace: tuple[Path, dict[str, str]], request: pytest.FixtureRequest
):
    folder, env = workplace
    env["OMP_NUM_THREADS"] = str(threads)
    python = sys.executable
    if page not in TYPED_BY_NEWCOMERS and not is_nightly() and is_recorded(page):
        pytest.skip("it ran as it is written, with the verbs of today (docs_site/executed.json); at night all run")
    if page not in TYPED_BY_NEWCOMERS and threads == 1:
        programs = request.getfixturevalue("programs")
        env, python = programs.environment(env), programs.python
    for block in runnable(page):
        command = {"bash": ["bash", "-euo", "pipefail", "-c", block.body], "python": [python, "-c", block.body]}
        done = subprocess.run(
            command[block.language], cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False
        )
        where = f"{page.relative_to(REPOSITORY)}:{block.line}"
        assert done.returncode == block.exit_code, (
            f"{where}\n{block.body}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        )
    measured = [(figure, figure.measured(folder)) for figure in figures(page.read_text(encoding="utf-8"))]
    assert [(figure, value) for figure, value in measured if figure.is_off(value)] == []


def test_each_decimal_that_readme_and_the_home_page_state_says_where_it_stands():
    for page in (REPOSITORY / "README.md", REPOSITORY / "docs" / "index.md"):
        text = re.sub(r"<!-- card: .*?<!-- /card -->", "", FENCE.sub("", page.read_text(encoding="utf-8")), flags=re.S)
        assert re.findall(r"\b0\.\d+\b(?!<!-- figure: )", text) == [], page


@pytest.mark.parametrize(
    ("written", "is_off"),
    [("0.78", False), ("0.76", False), ("**0.81**", True), ("−0.78", True), ("78 %", False), ("81 %", True)],
)
def test_a_figure_is_compared_with_what_was_written(tmp_path: Path, written: str, is_off: bool):
    (tmp_path / "t.csv").write_text("metric,group,value,n\nauroc,F,0.7833,93\nauroc,M,0.9575,91\n")
    (figure,) = figures(f"It is {written}<!-- figure: t.csv value metric=auroc group=F --> in women.")
    assert figure.is_off(figure.measured(tmp_path)) is is_off


def test_a_count_is_exact_and_a_figure_that_cannot_be_found_is_a_fault(tmp_path: Path):
    (tmp_path / "t.csv").write_text("metric,group,n\nauroc,F,1093\nauroc,all others,91\n")
    right, wrong, other = figures(
        "1,093<!-- figure: t.csv n group=F -->, 1,094<!-- figure: t.csv n group=F -->, "
        "91<!-- figure: t.csv n 'group=all others' -->"
    )
    assert not right.is_off(right.measured(tmp_path))
    assert wrong.is_off(wrong.measured(tmp_path))
    assert not other.is_off(other.measured(tmp_path))
    (both,) = figures("2<!-- figure: t.csv n metric=auroc -->")
    with pytest.raises(AssertionError, match="2 rows"):
        both.measured(tmp_path)
    with pytest.raises(AssertionError, match="behind no number"):
        figures("many<!-- figure: t.csv n group=F -->")


def test_a_page_is_written_with_the_verbs_of_its_commands_and_of_its_python():
    files = {path.relative_to(REPOSITORY).as_posix() for path in files_of(REPOSITORY / "docs" / "how-to" / "search.md")}
    assert {"docs/how-to/search.md", "medclip/api/search.py", "medclip/cli/search.py", "examples/sources.csv"} <= files
    assert "medclip/api/watch.py" not in files


def test_few_blocks_are_not_run_and_each_says_why():
    skipped = [(page.name, block) for page in PAGES for block in blocks(page) if block.skip]
    assert len(skipped) <= MAX_NOT_RUN, skipped
    notes = [m for page in PAGES for m in re.findall(r"<!-- no-run(.*?)-->", page.read_text(encoding="utf-8"))]
    assert all(note.startswith(": ") and len(note) > 10 for note in notes)
    assert len(notes) == len(skipped), "a no-run comment that stands before no fence"


def test_every_fence_names_its_language():
    for page in PAGES:
        for block in blocks(page):
            assert block.language in ("bash", "python", "text", "yaml", "toml", "json", "csv", "bibtex"), (
                page,
                block.line,
            )
