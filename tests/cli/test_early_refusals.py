"""What is wrong with a path is said before torch is imported, which takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CHILD = """
import contextlib, io, json, sys
from medclip.cli.main import main

for words in json.loads(sys.argv[1]):
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        code = main(words)
    heavy = [name for name in ("torch", "open_clip", "sklearn", "transformers") if name in sys.modules]
    print(json.dumps([words, code, told.getvalue(), heavy]))
    if heavy:
        break
"""


def test_a_mistyped_path_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    table, weights, recipe = tmp_path / "t.csv", tmp_path / "w.safetensors", tmp_path / "r.yaml"
    table.write_text("file,patient,modality,flu\na.png,p1,xray,0\nb.png,p2,xray,1\n")
    weights.write_bytes(b"")
    recipe.write_text("name: a\ndata: {shards: nowhere}\n")
    here, out = str(table), str(tmp_path / "out")
    adapt = ["--label", "flu", "--out", out]
    audit = ["audit", here, "--labels", here, "--by", "modality", "--out", out]
    cases = [
        ["score", "nowhere", "--out", out],
        ["score", str(tmp_path), "--out", out, "--table", "nowhere"],
        ["score", str(tmp_path), "--out", out, "--model", "nowhere"],
        ["score", str(tmp_path), "--out", out, "--key-file", "nowhere"],
        ["search", "nowhere", "effusion"],
        ["scan", "nowhere"],
        ["scan", str(tmp_path), "--table", "nowhere"],
        ["view", "nowhere", "--out", f"{out}.png"],
        ["explain", "nowhere", "--prompt", "flu", "--out", out],
        ["explain", here, "--prompt", "flu", "--out", out, "--model", "nowhere"],
        ["explain", here, "--prompt", "flu", "--out", out, "--method", "nowhere"],
        ["explain", here, "--prompt", "flu", "--out", out, "--scale", "nowhere"],
        ["pretrain", "nowhere"],
        ["pretrain", str(recipe)],
        ["shards", "build", "nowhere", "--out", out],
        ["shards", "check", "nowhere"],
        ["shards", "index", "nowhere", "--source", "a", "--license", "b"],
        ["pairs", "captions", "nowhere", "--from", "labels", "--out", f"{out}.csv"],
        ["pairs", "from-articles", "nowhere", "--out", out],
        ["pairs", "cluster", "nowhere", "--out", out],
        ["pairs", "label", "nowhere", "--labels", here, "--out", f"{out}.parquet"],
        ["evaluate", "--data", "nowhere"],
        ["evaluate", "--data", str(tmp_path), "--suite", "nowhere"],
        ["adapt", "--labels", "nowhere", *adapt],
        ["adapt", "--labels", here, *adapt, "--model", "nowhere"],
        ["adapt", "--labels", here, *adapt, "--images", "nowhere"],
        ["adapt", "--labels", here, *adapt, "--task", "nowhere"],
        ["adapt", "compare", "--labels", "nowhere", *adapt],
        ["adapt", "compare", "--labels", here, *adapt, "--model", "nowhere"],
        ["audit", "nowhere", *audit[2:]],
        [*audit[:3], "nowhere", *audit[4:]],
        [*audit, "--model", "nowhere"],
        [*audit, "--images", "nowhere"],
        [*audit, "--embeddings", "nowhere"],
        ["models", "show", "nowhere"],
        ["models", "verify", "nowhere"],
        ["models", "import", "nowhere.pt", "--out", out],
        ["models", "import", str(weights), "--out", out, "--text-folder", "nowhere"],
        ["models", "export", "nowhere", "--out", out],
    ]
    done = subprocess.run([sys.executable, "-c", CHILD, json.dumps(cases)], capture_output=True, text=True, timeout=300)
    ended = [json.loads(line) for line in done.stdout.splitlines()]
    for words, code, told, heavy in ended:
        assert (code, heavy) == (2, []), f"{' '.join(words)}: {code}, {heavy}, {told}"
        assert "nowhere" in told, f"{' '.join(words)}: {told}"
    assert len(ended) == len(cases), done.stderr
    assert not (tmp_path / "out").exists(), "nothing is made for a call that is refused"
