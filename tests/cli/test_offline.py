"""The whole command with every local option, in programs that may not open a connection: none of them asks for one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.kits.loaded_python import REAL_READERS, Programs
from tests.kits.scoring import make_pack, small_folder, write_dicom

REPOSITORY = Path(__file__).resolve().parents[2]
_CLOSED = """
import os, sys
def _closed(event, args):
    asks = event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
    if asks or (event == "socket.connect" and isinstance(args[1], tuple)):
        with open(os.environ["ASKED"], "a") as file:
            file.write(event + "\\n")
        raise RuntimeError("a command asked for the network")
sys.addaudithook(_closed)
with open(os.environ["GUARDED"], "a") as file:
    file.write("1\\n")
"""
"""Every process that Python starts writes down that it is guarded, and what it asked for."""


@pytest.mark.slow
def test_no_local_option_of_a_run_asks_for_the_network(programs: Programs, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_CLOSED)
    pack = make_pack(tmp_path / "packs" / "tiny")
    root = small_folder(tmp_path / "in")
    table = tmp_path / "table.csv"
    table.write_text("file,modality\n" + "".join(f"{p.relative_to(root)},xray\n" for p in sorted(root.rglob("*.png"))))
    hidden = ("MEDCLIP", "HF_", "TRANSFORMERS_", "PYTEST", "HTTP", "http")
    env = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    asked, guarded = tmp_path / "asked", tmp_path / "guarded"
    env |= {
        "PYTHONPATH": f"{site}{os.pathsep}{REPOSITORY}",
        "MEDCLIP_HOME": str(tmp_path / "home"),
        "ASKED": str(asked),
        "GUARDED": str(guarded),
        REAL_READERS: "1",
    }

    def run(*words: object) -> None:
        command = [programs.python, "-m", "medclip.cli.main", *map(str, words)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode in (0, 3), done.stderr[-3000:]

    watched = ("--log", tmp_path / "n.jsonl", "--log", tmp_path / "n.prom")
    out = tmp_path / "out"
    scoring = (
        "score",
        root,
        "--out",
        out,
        "--model",
        pack,
        "--workers",
        2,
        "--memory",
        "4GB",
        "--table",
        table,
        "--weeks",
        "--prompt",
        "a pacemaker",
        "--against",
        "no pacemaker",
        "--task",
        "chest_xray_view",
        "--group-by",
        "auto",
        "--min-confidence",
        0.0,
        "--reading",
        "uneven_slices=resample",
        "--batch-size",
        2,
        "--export",
        "csv",
        "--export",
        f"sr={tmp_path / 'results'}",
        "--export",
        f"fhir-r4b={tmp_path / 'results'}",
        *watched,
    )
    run(*scoring, "--limit", 2)
    run(*scoring)
    write_dicom(root / "new" / "late.dcm", 77)
    run(*scoring, "--add")
    run("retry", out)
    run("report", out, "--sort-by", "chest_xray_view:pa", "--explain", "top", "--report-paths")
    run("export", out, "--as", "fhir-r5", "--to", tmp_path / "later")
    run("score", root, "--out", tmp_path / "hashed", "--model", pack, "--hash-paths", "--no-thumbnails", "--exam")
    for n in (1, 2):
        run("score", root, "--out", tmp_path / f"shard{n}", "--model", pack, "--shard", f"{n}/2")
    run("runs", "merge", tmp_path / "shard1", tmp_path / "shard2", "--out", tmp_path / "merged")
    run("embed", root, "--out", tmp_path / "vectors", "--model", pack, "--dtype", "float16", *watched)
    run("score", tmp_path / "vectors", "--out", tmp_path / "answers", "--model", pack, "--prompt", "effusion")
    run("status", out)
    run("scan", root)
    run("runs", "purge", tmp_path, "--remove", "thumbnails", "--yes")
    assert not asked.exists(), asked.read_text()
    assert len(guarded.read_text().split()) > 2 * 12, "the reading processes were not guarded"
