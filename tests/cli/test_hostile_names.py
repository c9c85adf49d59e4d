"""Files called to drive a terminal, a browser or a spreadsheet: their names are shown and do nothing."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.kits.loaded_python import Programs
from tests.kits.scoring import make_pack, write_png

NAMES = (
    "a\x1b]0;owned\x07b.png",
    "b\x1b[31mred.png",
    "c\x9b31m.png",
    "[red]d.png",
    "[link=file:etc]e[bold].png",
    "<img src=x onerror=alert(1)>.png",
    "'\"><script>alert(1)<!--.png",
    "=cmd|' C'!A0.png",
    "new\nline\rover.png",
    "\u202egnp.exe.png",
    "&amp;lt;script&amp;gt;.png",
)
"""Titles and colours of terminals, marks of rich, tags, a formula, line breaks, a turned direction, an entity."""


class _Page(HTMLParser):
    """What a browser would see of a page that runs or loads something."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        events = [name for name, _ in attrs if name.startswith("on")]
        away = [
            value
            for name, value in attrs
            if name in ("src", "href") and not re.match("#|data:|[\\w-]+[./]", value or "")
        ]
        if events or away or (tag == "img" and ("src", "x") in attrs):
            self.wrong.append(f"{tag} {attrs}")


def _on_a_terminal(python: str, *words: str) -> str:
    """Run a command whose output is a terminal, and return all that it writes there."""
    ours, theirs = pty.openpty()
    line = [python, "-c", "from medclip.cli.main import main; main()", *words]
    process = subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True)
    os.close(theirs)
    written = bytearray()
    try:
        while piece := os.read(ours, 65536):
            written += piece
    except OSError:  # Linux says so when the other side is closed
        pass
    finally:
        os.close(ours)
        process.wait(timeout=60)
    return written.decode(errors="surrogateescape")


@pytest.mark.slow
def test_names_of_files_do_nothing_to_a_terminal_and_to_a_browser(programs: Programs, tmp_path: Path) -> None:
    pack, studies, out = make_pack(tmp_path / "pack"), tmp_path / "studies", tmp_path / "out"
    for number, name in enumerate(NAMES):
        write_png(studies / name, number)
        (studies / f"broken {name}").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    commands = [
        ("scan", str(studies)),
        ("score", str(studies), "--out", str(out), "--model", str(pack), "--modality", "xray"),
        ("report", str(out), "--report-paths"),
        ("status", str(out)),
        ("view", str(studies / NAMES[0]), "--out", str(tmp_path / "v.png")),
        ("view", str(studies / f"broken {NAMES[1]}"), "--out", str(tmp_path / "w.png")),
        ("view", str(studies / f"no such {NAMES[3]}"), "--out", str(tmp_path / "x.png")),
    ]
    shown = ""
    for words in commands:
        text = _on_a_terminal(programs.python, *words)
        assert text, words
        for sequence in ("\x1b]0;", "\x1b]8;;file:", "\x9b", "\udc9b", "\u202e", "line\rover"):
            assert sequence not in text, (words, sequence)
        assert "b\x1b[31mred" not in text, words
        shown += text
    assert "[red]d.png" in re.sub(r"\x1b\[[0-9;]*m|\s", "", shown), "marks of rich are shown as they are written"
    for page in sorted(out.rglob("*.html")):
        parser = _Page()
        parser.feed(page.read_text(encoding="utf-8"))
        assert parser.wrong == [], page.name
    assert any("onerror" in page.read_text(encoding="utf-8") for page in out.rglob("*.html")), "the names are shown"
