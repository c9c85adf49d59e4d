"""Memory of the processes that read batches of a split with millions of samples.

    python benchmarks/shard_memory.py [--rows 5280000] [--workers 2]

Writes samples.parquet and the index of so many samples that lie in 500 tars (of which one exists, with one small sample
that all rows point to), opens the split twice, and has worker processes make batches of random rows. Prints seconds to
open, and for the main process and each worker the proportional set size (PSS: shared pages are divided among those that
share them), its anonymous part and the unique set size (USS). Linux only. Exits 1 where any PSS is above 200 MB.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

LIMIT_MB = 200


def write_folder(folder: Path, num_rows: int) -> None:
    """Write a shard folder of one real sample that stands in `num_rows` rows."""
    from medclip.sample import Modality
    from medclip.shards.folder import write_index
    from medclip.shards.reading.foreign import ForeignSet
    from medclip.shards.reading.index_tars import index_shards

    source = folder / "tars"
    source.mkdir()
    image, text = io.BytesIO(), b"an image of the chest"
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(image, "JPEG")
    with tarfile.open(source / "000000.tar", "w") as tar:
        for extension, content in (("jpg", image.getvalue()), ("txt", text)):
            info = tarfile.TarInfo(f"000000.{extension}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    index_shards(source, ForeignSet("benchmark", "none", Modality.XRAY), key=bytes(32))
    from medclip.shards.folder import read_index
    from medclip.shards.reading.samples import ShardReader

    index = read_index(source)
    sample = ShardReader(source, "train").row(0)
    shards, per_shard = 500, -(-num_rows // 500)
    content = (source / "000000.tar").read_bytes()
    for number in range(shards):
        (source / f"{number:06d}.tar").write_bytes(content)
    rng = np.random.default_rng(0)
    columns = {
        "key": pa.array([f"patient{i // 2:08d}-{i:08d}" for i in range(num_rows)]),
        "split": pa.array(["train"]).take(pa.array(np.zeros(num_rows, np.int32))),
        "shard": pa.array([f"{n:06d}.tar" for n in range(shards)]).take(pa.array(np.arange(num_rows) // per_shard)),
        "offset": pa.array(np.full(num_rows, sample["offset"])),
        "size": pa.array(np.full(num_rows, sample["size"])),
        "sha256": pa.array([rng.bytes(32).hex() for _ in range(num_rows)]),
        "patient": pa.array([f"{i // 2:032x}" for i in range(num_rows)]),
        "modality": pa.array(["xray", "ct", "fundus"]).take(pa.array(rng.integers(0, 3, num_rows))),
        "adapter": pa.array([sample["adapter"]]).take(pa.array(np.zeros(num_rows, np.int32))),
        "source": pa.array([f"set {n}" for n in range(20)]).take(pa.array(rng.integers(0, 20, num_rows))),
        "license": pa.array(["CC0"]).take(pa.array(np.zeros(num_rows, np.int32))),
    }
    first = index["shards"][0]
    index["shards"] = [
        {**first, "name": f"{n:06d}.tar", "samples": per_shard, "sha256": f"{n:064x}"} for n in range(shards)
    ]
    write_index(
        source,
        pa.table(columns),
        [],
        shards=index["shards"],
        counts=index["counts"],
        options=index["options"],
        preprocessing=index["preprocessing"],
        columns=index["columns"],
        foreign=index.get("foreign"),
    )


def memory_mb(pid: int) -> dict[str, float]:
    """Return PSS, anonymous PSS and USS of a process in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kb = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return {
        "PSS": kb["Pss"] / 1e3,
        "of it anonymous": kb["Pss_Anon"] / 1e3,
        "USS": (kb["Private_Clean"] + kb["Private_Dirty"]) / 1e3,
    }


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_280_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="Written before, or to keep.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        os.environ["MEDCLIP_HOME"] = str(folder / "home")
        if not (folder / "tars").is_dir():
            folder.mkdir(exist_ok=True)
            if os.fork() == 0:  # so that what writing takes is not counted here
                write_folder(folder, options.rows)
                os._exit(0)
            os.wait()
        return measure(folder / "tars", options.workers)


def measure(folder: Path, workers: int) -> int:
    """Open the split, make batches, print what each process holds."""
    from medclip.models.inputs.preprocess import Preprocess
    from medclip.shards.reading.samples import ShardReader
    from medclip.text.tokenizers.clip import ClipTokenizer
    from medclip.training.batches.loader import Batches
    from medclip.training.batches.samples import Drawing
    from medclip.training.batches.workers import CrewOptions
    from medclip.training.recipe.augment import Augment

    imported = memory_mb(os.getpid())

    def opened(attempt: str) -> ShardReader:
        start = time.perf_counter()
        reader = ShardReader(folder, "train")
        assert len(reader.columns) == len(reader)
        print(f"{len(reader):,} rows opened {attempt}: {time.perf_counter() - start:.2f} s", flush=True)
        return reader

    if os.fork() == 0:  # what writing the file takes is given back to the system with the process that did it
        opened("for the first time")
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"  most that writing took: {peak_mb:.0f} MB resident", flush=True)
        os._exit(0)
    os.wait()
    reader = opened("again")
    bare = memory_mb(os.getpid())
    batches = Batches(
        reader,
        Drawing(Preprocess(64), 0, Augment(), 1.0, 0.5),
        batch_size=256,
        tokenizer=ClipTokenizer(),
        making=CrewOptions("process", workers, cache_mb=0),
    )
    for batch in batches.training(0, 100):
        assert batch.valid.all()
        batch.release()
    tasks = Path("/proc/self/task").iterdir()  # a process is the child of the thread that started it
    children = {int(pid) for task in tasks for pid in (task / "children").read_text().split()}
    processes = {"main, imported": imported, "main, reader open": bare, "main, 100 batches": memory_mb(os.getpid())}
    processes |= {f"worker {i}": memory_mb(pid) for i, pid in enumerate(sorted(children))}
    for name, figures in processes.items():
        print(f"  {name}: " + ", ".join(f"{what} {mb:.0f} MB" for what, mb in figures.items()))
    batches.close()
    worst = max(figures["PSS"] for figures in processes.values())
    print(f"  most: {worst:.0f} MB, goal {LIMIT_MB}")
    return 0 if worst <= LIMIT_MB else 1


if __name__ == "__main__":
    sys.exit(main())
