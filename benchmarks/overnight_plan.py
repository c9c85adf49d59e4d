"""A million studies on 1, 4 and 32 GPU nodes, on paper: hours, bottleneck and storage, from assumptions that it prints.

The plan is the library's own: the files of a made-up archive are cut into windows and shards by the code that cuts real
ones, so that the largest shard is known. What the ledger, the merge and the tables cost is measured here, on rows as
runs write them. What no machine at hand can tell (GPU, storage, cores of a node) is an argument.

    python benchmarks/overnight_plan.py
    python benchmarks/overnight_plan.py --gpu-images-s 4000 --store-gbps 2 --json

Each stage of a run overlaps with the others, so that the slowest sets the pace; what comes after (merge, tables) is
added. Files are read once: what was hashed is still in memory when it is decoded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medclip.files.tables.write import write_rows
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.planning.identity import RunShard
from medclip.runs.planning.listing import windows
from medclip.runs.planning.plan import CHUNK_FILES
from medclip.runs.rows import ChunkResult, FileRow, ScoreRow, Thumbnail
from medclip.sample import FileRef, Stamp

SCORES_PER_STUDY = 14
THUMBNAIL_BYTES = 5_000
FILMS = ((1, 0.45), (2, 0.40), (3, 0.10), (4, 0.05))
"""Films of a study and the share of such studies: an assumption about radiography."""


@dataclass(frozen=True)
class Node:
    """What one node is assumed to do."""

    cores: int
    gpus: int
    gpu_images_s: float
    network_gbps: float
    look_ms: float
    decode_ms: float


@dataclass(frozen=True)
class Costs:
    """What was measured on this machine, per file."""

    ledger_s: float
    ledger_bytes: float
    merge_s: float
    tables_s: float
    tables_bytes: float


def archive(num_studies: int, file_bytes: int, seed: int) -> Iterator[FileRef]:
    """Yield the files of an archive: a folder for each thousand studies, one for each study in it."""
    chance = random.Random(seed)
    sizes, weights = zip(*FILMS, strict=True)
    for study in range(num_studies):
        for film in range(chance.choices(sizes, weights)[0]):
            name = f"{study // 1000:05}/{study:07}/{film}.dcm"
            num_bytes = int(file_bytes * chance.lognormvariate(-0.125, 0.5))  # of mean `file_bytes`
            yield FileRef(Path(name), name, num_bytes, stamp=Stamp(num_bytes, 1, 1))


def shares(refs: Iterator[FileRef], nodes: list[int]) -> tuple[int, dict[int, float]]:
    """Return the number of files, and of each number of shards what the largest holds over the mean, by bytes."""
    cut = [([ref.size_bytes for ref in window], is_cut) for window, is_cut in windows(refs)]
    num_files, total = sum(len(window) for window, _ in cut), sum(sum(window) for window, _ in cut)
    largest = {}
    for num in nodes:
        parts = [sum(sum(w) for w, _ in RunShard(n, num).select(iter(cut))) for n in range(1, num + 1)]  # pyright: ignore
        largest[num] = max(parts) * num / total
    return num_files, largest


def measure(num_files: int) -> Costs:
    """Write a ledger, a merge and tables of so many files."""
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place) / name for name in ("a", "all")]
        for folder in folders:
            folder.mkdir()
        with Ledger(folders[0]) as ledger:
            start = time.perf_counter()
            for at in range(0, num_files, CHUNK_FILES):
                names = [f"{n // 1000:05}/{n:07}/0.dcm" for n in range(at, at + CHUNK_FILES)]
                known = ledger.register([FileRef(Path(n), n, 1000, stamp=Stamp(1000, 1, 1)) for n in names])
                ledger.tie((file.id, hashlib.sha256(file.name.encode()).hexdigest()[:16], False) for file in known)
                rows = [_file_row(file.id, file.name) for file in known]
                scores = [_score_row(row, n) for row in rows for n in range(SCORES_PER_STUDY)]
                small = [Thumbnail(row.row, b"\xff" * THUMBNAIL_BYTES, False) for row in rows]
                ledger.commit(ChunkResult(tuple(rows), tuple(scores), tuple(small)))
            ledger_s = time.perf_counter() - start
        ledger_bytes = sum(path.stat().st_size for path in folders[0].iterdir())
        with Ledger(folders[0], create=False) as shard, Ledger(folders[1]) as merged:
            start = time.perf_counter()
            merged.fill_from_shards([shard], {"shards": []})
            merge_s = time.perf_counter() - start
            merged.number()
            start = time.perf_counter()
            write_rows(folders[1] / "files.parquet", FileRow, merged.files())
            write_rows(folders[1] / "scores.parquet", ScoreRow, merged.scores())
            tables_s = time.perf_counter() - start
        tables_bytes = sum(path.stat().st_size for path in folders[1].glob("*.parquet"))
    per = [value / num_files for value in (ledger_s, ledger_bytes, merge_s, tables_s, tables_bytes)]
    return Costs(*per)


def _file_row(number: int, name: str) -> FileRow:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return FileRow(
        number,
        name,
        digest,
        8_000_000,
        "dicom",
        "scored",
        None,
        None,
        study=digest[:16],
        modality="xray",
        modality_source="header",
        adapter="xray",
        preprocessing=digest[:12],
        decoder="pydicom",
        grouping="uid",
        steps='[["window", "linear"], ["resize", "224"]]',
        kind="image",
        unit=number,
        headers='{"sex": "F"}',
    )


def _score_row(file: FileRow, number: int) -> ScoreRow:
    value = int(str(file.sha256)[number : number + 6], 16) / 16**6
    return ScoreRow(
        str(file.study),
        str(file.sha256)[16:32],
        "xray",
        "chest_xray_findings",
        f"finding {number}",
        "multi_label",
        value,
        value * 4 - 2,
        1,
        "pack",
        "1",
        str(file.preprocessing),
    )


def hours(
    num_nodes: int, engine: str, num_files: int, largest: float, node: Node, costs: Costs, store_gbps: float, mb: float
) -> tuple[float, str, float]:
    """Return the hours of a run, what it waits for, and how much of the time its GPUs compute."""
    share = num_files / num_nodes * (largest if engine == "shards" else 1.0)
    stages = {
        "GPU": share / (node.gpus * node.gpu_images_s),
        "decoding": share * (node.look_ms + node.decode_ms) / 1000 / node.cores,
        "network of a node": share * mb * 8 / 1000 / node.network_gbps,
        "storage": num_files * mb * 8 / 1000 / store_gbps,
        "ledger": costs.ledger_s * (share if engine == "shards" else num_files),
    }
    slowest = max(stages, key=lambda name: stages[name])
    after = num_files * (costs.tables_s + (costs.merge_s if engine == "shards" else 0.0))
    return (stages[slowest] + after) / 3600, slowest, stages["GPU"] / (stages[slowest] + after)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=1_000_000)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 4, 32])
    parser.add_argument("--file-mb", type=float, default=8.0, help="mean size of a film (assumed: 2k x 2k, 16 bit)")
    parser.add_argument("--cores", type=int, default=16, help="of a node (assumed)")
    parser.add_argument("--gpus", type=int, default=1, help="of a node (assumed)")
    parser.add_argument("--gpu-images-s", type=float, default=1500, help="ViT-B/16 at 224 px, bf16 (assumed)")
    parser.add_argument("--network-gbps", type=float, default=10, help="of a node (assumed)")
    parser.add_argument("--store-gbps", type=float, default=40, help="of the storage that all share (assumed)")
    parser.add_argument("--look-ms", type=float, default=12, help="CPU to hash and recognise a file (assumed)")
    parser.add_argument("--decode-ms", type=float, default=80, help="CPU to decode and shrink a film (assumed)")
    parser.add_argument("--measured-files", type=int, default=6400, help="files of the ledger that is timed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    node = Node(asked.cores, asked.gpus, asked.gpu_images_s, asked.network_gbps, asked.look_ms, asked.decode_ms)
    costs = measure(asked.measured_files)
    refs = archive(asked.studies, int(asked.file_mb * 1e6), asked.seed)
    num_files, largest = shares(refs, asked.nodes)
    rows = []
    for num_nodes in asked.nodes:
        for engine in ("shards", "ray") if num_nodes > 1 else ("local",):
            took, slowest, busy = hours(
                num_nodes,
                "shards" if engine == "local" else engine,
                num_files,
                largest[num_nodes],
                node,
                costs,
                asked.store_gbps,
                asked.file_mb,
            )
            rows.append({"nodes": num_nodes, "engine": engine, "hours": took, "bottleneck": slowest, "gpu_busy": busy})
    storage = {
        "input_tb": num_files * asked.file_mb / 1e6,
        "ledger_gb": num_files * costs.ledger_bytes / 1e9,
        "tables_gb": num_files * costs.tables_bytes / 1e9,
        "embeddings_gb": num_files * 512 * 4 / 1e9,
    }
    if asked.json:
        print(json.dumps({"files": num_files, "largest": largest, "rows": rows, **storage, "costs": vars(costs)}))
        return
    print(f"{asked.studies:,} studies, {num_files:,} files of {asked.file_mb:g} MB: {storage['input_tb']:.1f} TB\n")
    print("Assumed: " + "; ".join(f"{n.replace('_', ' ')} {v:g}" for n, v in vars(node).items()))
    print(f"         storage {asked.store_gbps:g} Gbit/s; {SCORES_PER_STUDY} scores a study; films a study {FILMS}")
    print(
        f"Measured here, a file: ledger {costs.ledger_s * 1e3:.2f} ms and {costs.ledger_bytes / 1e3:.1f} kB, merge "
        f"{costs.merge_s * 1e3:.2f} ms, tables {costs.tables_s * 1e3:.2f} ms and {costs.tables_bytes:.0f} bytes"
    )
    print("Planned: the largest shard over the mean " + ", ".join(f"{n}: {v:.3f}" for n, v in largest.items()) + "\n")
    print(f"{'nodes':>5} {'engine':<7} {'hours':>6}  {'bottleneck':<21} GPU busy")
    for row in rows:
        print(
            f"{row['nodes']:>5} {row['engine']:<7} {row['hours']:>6.1f}  {row['bottleneck']:<21} {row['gpu_busy']:.0%}"
        )
    print(
        f"\nBeside the input: ledger {storage['ledger_gb']:.1f} GB (with small images; twice in a merge), tables "
        f"{storage['tables_gb']:.1f} GB, vectors of 512 float32 (embed) {storage['embeddings_gb']:.1f} GB"
    )


if __name__ == "__main__":
    main()
