"""Whatever the umask: what the verbs write about patients is their caller's alone, also while libraries write it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import medclip
from medclip.pairs.journal import Journal
from medclip.progress import Silent
from medclip.training.result import RunLog
from tests.kits.scoring import make_pack, write_png

VERBS: dict[str, Callable[[Path, Path, Path], object]] = {
    "score": lambda studies, pack, out: medclip.score(studies, out=out, model=pack, min_confidence=0.0),
    "embed": lambda studies, pack, out: medclip.embed(studies, out=out, model=pack, min_confidence=0.0),
    "explain": lambda studies, pack, out: medclip.explain(
        studies / "a.png", prompt=["a film"], out=out, model=pack, modality="xray"
    ),
    "view": lambda studies, pack, out: medclip.view(studies / "a.png", out=out / "a.png"),
    "the log of a training": lambda studies, pack, out: _closed(RunLog(_made(out), 2, 0, Silent())),
    "the journal of captions": lambda studies, pack, out: Journal(out).__exit__(None, None, None),
}


def _made(folder: Path) -> Path:
    folder.mkdir(0o700)
    return folder


def _closed(log: RunLog) -> None:
    log.close()


@pytest.mark.parametrize("verb", VERBS)
def test_what_a_verb_writes_is_its_callers_alone_though_the_umask_is_0(verb: str, tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "pack")
    write_png(tmp_path / "studies" / "a.png", 1)
    out, before = tmp_path / "out", os.umask(0)
    try:
        VERBS[verb](tmp_path / "studies", pack, out)
    finally:
        os.umask(before)
    written = [out, *out.rglob("*")]
    assert len(written) > 1
    open_to_others = [p.name for p in written if stat.S_IMODE(p.stat().st_mode) & 0o077]
    assert not open_to_others
