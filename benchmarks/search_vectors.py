"""How fast and in how much memory search goes through vectors, beside faiss.IndexFlatIP and numpy, in one run.

    python benchmarks/search_vectors.py --rows 1000000 --dim 512

Vectors are drawn, of unit norm, and written into the raw file that search maps. Each engine then runs in a process of
its own (two libraries' thread pools in one process are in each other's way), by turns, so that neither has the quieter
machine. faiss holds all vectors in memory; the time to put them there is not counted. Answers must be the same rows.
numpy's product and argpartition hold all vectors in memory, too. A file of up to 1 GiB stays mapped, and counts as
memory of medclip then.
Goal: at least 0.8 of the speed of faiss, within `medclip.retrieval.top_rows.MEMORY_BYTES`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from medclip.retrieval.top_rows import MEMORY_BYTES, VectorFile, open_vector_file, top_rows, write_vector_file

_QUERIES = (1, 8, 64)
_TOP = 50
_ENGINES = ("medclip", "faiss", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--engine", choices=_ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="Where the file is written; a temporary folder by default.")
    args = parser.parse_args()
    if args.engine:
        print(json.dumps(_measure(args.engine, args.folder, args.rows, args.dim, args.repeats)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        write_vector_file(folder / "v.npy", (args.rows, args.dim), _vectors(args.rows, args.dim))
        runs = [{e: _in_process(e, folder, args) for e in _ENGINES} for _ in range(args.turns)]
    _print(runs, args)


def _vectors(num_rows: int, dim: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for start in range(0, num_rows, 65_536):
        block = rng.standard_normal((min(65_536, num_rows - start), dim), dtype=np.float32)
        yield block / np.linalg.norm(block, axis=1, keepdims=True)


def _in_process(engine: str, folder: Path, args: argparse.Namespace) -> dict:
    command = [sys.executable, __file__, "--engine", engine, "--folder", str(folder)]
    command += ["--rows", str(args.rows), "--dim", str(args.dim), "--repeats", str(args.repeats)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _measure(engine: str, folder: Path, num_rows: int, dim: int, repeats: int) -> dict:
    vectors = open_vector_file(folder / "v.npy", (num_rows, dim))
    assert vectors is not None
    queries = np.random.default_rng(1).standard_normal((max(_QUERIES), dim), dtype=np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    before = _peak()
    for _ in vectors.blocks():  # from the page cache: faiss, too, begins with everything in memory
        pass
    makers = {"medclip": _in_medclip, "faiss": _in_faiss, "numpy": _in_numpy}
    search = makers[engine](vectors)
    seconds, rows = {}, []
    for num in _QUERIES:
        took = []
        for _ in range(repeats):
            began = time.perf_counter()
            answer = search(queries[:num])
            took.append(time.perf_counter() - began)
            rows = answer.tolist()
        seconds[num] = min(took)
    return {"seconds": seconds, "megabytes": (_peak() - before) / 1e6, "rows": rows}


def _in_medclip(vectors: VectorFile) -> Callable[[np.ndarray], np.ndarray]:
    return lambda asked: top_rows(vectors, asked, _TOP).rows


def _in_numpy(vectors: VectorFile) -> Callable[[np.ndarray], np.ndarray]:
    held = np.array(vectors.vectors)

    def search(asked: np.ndarray) -> np.ndarray:
        scores = asked @ held.T
        best = np.argpartition(-scores, _TOP, axis=1)[:, :_TOP]
        return np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable"), 1)

    return search


def _in_faiss(vectors: VectorFile) -> Callable[[np.ndarray], np.ndarray]:
    import faiss  # pyright: ignore[reportMissingImports] (an extra)

    index = faiss.IndexFlatIP(vectors.dim)
    for _, block in vectors.blocks():
        index.add(np.ascontiguousarray(block))
    return lambda asked: index.search(asked, _TOP)[1]


def _peak() -> int:
    """Return the most memory this process ever held, mapped pages of files among it, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")  # ru_maxrss begins with that of the parent
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def _print(runs: list[dict], args: argparse.Namespace) -> None:
    ours, theirs = (np.array([r["rows"] for r in [run[e] for run in runs]]) for e in ("medclip", "faiss"))
    print(f"{args.rows:,} x {args.dim} float32, {_TOP} best; the fastest of {args.turns} turns of {args.repeats}")
    print(f"same rows: {(ours == theirs).mean():.4f} (float32 sums of faiss may order near ties otherwise)")
    for num in map(str, _QUERIES):
        mine, *others = (min(run[e]["seconds"][num] for run in runs) for e in _ENGINES)
        beside = "  ".join(
            f"{e} {seconds:7.3f} s {seconds / mine:5.2f} x its speed"
            for e, seconds in zip(_ENGINES[1:], others, strict=True)
        )
        print(f"{num:>3} queries  medclip {mine:7.3f} s  {beside} (goal 0.8 of faiss)")
    mine, other = (max(run[e]["megabytes"] for run in runs) for e in ("medclip", "faiss"))
    print(f"memory added: medclip {mine:,.0f} MB (ceiling {MEMORY_BYTES / 1e6:,.0f} MB), faiss {other:,.0f} MB")


if __name__ == "__main__":
    main()
