"""Training batches from shards in an S3 store: medclip's cache and read-ahead beside webdataset's pipe, and a disk.

    python benchmarks/remote_shards.py [--data ../shared/data] [--images 1024] [--latency-ms 20] [--rounds 3]

The store is moto's S3 server on loopback, which holds back each answer by the latency. Every side reads the same tars
(JPEG of 512 to 1024 px) from a cold start in each round, with the same number of workers, and gives batches of 224 px.
medclip reads `s3://` through a cache with room for two windows; webdataset reads `pipe:curl` of the same objects, with
open_clip's stages. A second part moves bytes only, without decoding. Requests and bytes are counted by the server; the
batches from the store must equal those from the disk. Exits 1 where medclip asks for a byte of a shard twice in an
epoch, needs more than two requests a shard, or gives fewer images a second than webdataset.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

BATCH, SIZE, PER_SHARD, WINDOW = 64, 224, 128, 2
BUCKET = "benchmark-shards"
KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}


def serve(port: int, latency_s: float, log: Path) -> None:
    """Be an S3 store that answers late and writes down what was asked."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, run_simple

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, type: str, message: str, *args: Any) -> None:
            pass

    store = DomainDispatcherApplication(create_backend_app)

    def late(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        time.sleep(latency_s)
        body = b"".join(store(environ, start_response))
        with log.open("a") as file:
            file.write(f"{environ['REQUEST_METHOD']}\t{environ['PATH_INFO']}\t{len(body)}\n")
        return [body]

    run_simple("127.0.0.1", port, late, threaded=True, request_handler=Quiet)


def upload(folder: Path, endpoint: str) -> None:
    """Put a folder into the bucket."""
    import boto3

    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket=BUCKET)
    for path in sorted(folder.iterdir()):
        client.put_object(Bucket=BUCKET, Key=f"s/{path.name}", Body=path.read_bytes(), ACL="public-read")


def ours(place: str | Path, cache: Any, number: int, workers: int, kind: str) -> Iterator[tuple[str, int]]:
    """Yield a hash and the size of each batch of an epoch, as the trainer gets them."""
    from medclip.models.inputs.preprocess import Preprocess
    from medclip.shards.reading.samples import ShardReader
    from medclip.training.batches.loader import Batches
    from medclip.training.batches.order import Order
    from medclip.training.batches.samples import Drawing
    from medclip.training.batches.workers import CrewOptions
    from medclip.training.recipe.augment import Augment

    augment = Augment(crop_scale=(0.9, 1.0), rotate_deg=0, brightness=0, contrast=0)
    batches = Batches(
        ShardReader(place, "train", cache=cache),
        Drawing(Preprocess(SIZE), 0, augment, 1.0, 0.5),
        batch_size=BATCH,
        order=Order(window_shards=WINDOW),
        making=CrewOptions("process" if kind == "process" else "thread", workers, cache_mb=0),
    )
    try:
        for batch in batches.training(0, number // BATCH):
            yield hashlib.blake2b(batch.images, digest_size=8).hexdigest(), len(batch.images)
            release = getattr(batch, "release", None)
            if release is not None:
                release()
    finally:
        batches.close()


def theirs(urls: list[str], number: int, workers: int) -> Iterator[tuple[str, int]]:
    """Yield batches of webdataset: open_clip's stages over pipes."""
    import open_clip
    import webdataset as wds

    transform = open_clip.image_transform(SIZE, is_train=True)
    stages = [
        wds.SimpleShardList(urls),
        wds.detshuffle(bufsize=2000, initial=500, seed=0),
        wds.split_by_worker,
        wds.tarfile_to_samples(),
        wds.shuffle(bufsize=WINDOW * PER_SHARD, initial=WINDOW * PER_SHARD),
        wds.decode("pilrgb"),
        wds.rename(image="jpg", text="txt"),
        wds.map_dict(image=transform),
        wds.to_tuple("image", "text"),
        wds.batched(BATCH, partial=True),
    ]
    dataset = wds.DataPipeline(*stages)
    for images, _ in wds.WebLoader(dataset, batch_size=None, shuffle=False, num_workers=workers):
        yield "", len(images)


def our_bytes(place: str, cache: Any, number: int) -> int:
    """Read the samples of an epoch in the order of training, without decoding them; bytes."""
    from medclip.shards.reading.samples import ShardReader
    from medclip.training.batches.order import WindowsAhead, epoch_plan

    reader = ShardReader(place, "train", cache=cache)
    plan = epoch_plan(reader.columns, batch_size=BATCH, seed=0, epoch=0, window_shards=WINDOW)
    ahead = WindowsAhead(
        reader.columns, "shard_mixed", batch_size=BATCH, steps_per_epoch=len(plan), seed=0, window_shards=WINDOW
    )
    size, wanted = 0, None
    for step, rows in enumerate(plan):
        needed = ahead.needed(step, step, len(plan))
        if needed != wanted:
            reader.want(*needed)
            wanted = needed
        size += sum(len(reader.raw(int(i))) for i in rows)
    reader.close()
    return size


def their_bytes(urls: list[str]) -> int:
    """Read the samples of all tars through webdataset's pipe, without decoding them; bytes."""
    import webdataset as wds

    samples = wds.DataPipeline(wds.SimpleShardList(urls), wds.tarfile_to_samples(), wds.shuffle(WINDOW * PER_SHARD))
    return sum(len(value) for sample in samples for value in sample.values() if isinstance(value, bytes))


def requests(log: Path, since: int) -> tuple[int, int, int]:
    """Return requests for tars after a line of the log, their bytes, and the lines."""
    lines = log.read_text().splitlines() if log.exists() else []
    tars = [line.split("\t") for line in lines[since:] if ".tar" in line and line.startswith("GET")]
    return len(tars), sum(int(t[2]) for t in tars), len(lines)


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kind", choices=("thread", "process"), default="thread", help="Workers of medclip.")
    parser.add_argument("--serve", nargs=2, metavar=("PORT", "LOG"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.serve:
        serve(int(options.serve[0]), options.latency_ms / 1000, Path(options.serve[1]))
        return 0
    from benchmarks.input_pipeline import write_shards
    from medclip.sample import Modality
    from medclip.shards.reading.foreign import ForeignSet
    from medclip.shards.reading.index_tars import index_shards
    from medclip.shards.reading.shard_cache import ShardCache

    with tempfile.TemporaryDirectory() as name:
        folder, log = Path(name, "shards"), Path(name, "requests.tsv")
        folder.mkdir()
        write_shards(options.data, folder, options.images, None)
        index_shards(folder, ForeignSet("benchmark", "none", Modality.XRAY), key=bytes(32))
        tars = sorted(folder.glob("*.tar"))
        num_bytes, largest = sum(p.stat().st_size for p in tars), max(p.stat().st_size for p in tars)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, __file__, "--serve", str(port), str(log), "--latency-ms", str(options.latency_ms)]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        endpoint = f"http://127.0.0.1:{port}"
        os.environ.update({**KEYS, "AWS_ENDPOINT_URL": endpoint})
        try:
            for _ in range(300):
                with socket.socket() as asked:
                    if asked.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            upload(folder, endpoint)
            url, urls = f"s3://{BUCKET}/s", [f"pipe:curl -s -f {endpoint}/{BUCKET}/s/{p.name}" for p in tars]
            room = (2 * WINDOW + 1) * largest  # two windows and the table

            def fresh() -> ShardCache:
                shutil.rmtree(Path(name, "cache"), ignore_errors=True)
                return ShardCache(Path(name, "cache"), room)

            sides = {
                "disk, medclip": lambda: list(ours(folder, None, options.images, options.workers, options.kind)),
                "store, medclip": lambda: list(ours(url, fresh(), options.images, options.workers, options.kind)),
                "store, webdataset": lambda: list(theirs(urls, options.images, options.workers)),
            }
            speeds: dict[str, list[float]] = {side: [] for side in sides}
            counted: dict[str, tuple[int, int]] = {}
            hashes: dict[str, list[str]] = {}
            for _ in range(options.rounds):
                for side, run in sides.items():
                    since, start = requests(log, 0)[2], time.perf_counter()
                    batches = run()
                    speeds[side].append(sum(n for _, n in batches) / (time.perf_counter() - start))
                    hashes[side], counted[side] = [h for h, _ in batches], requests(log, since)[:2]
            raw: dict[str, list[float]] = {"store, medclip": [], "store, webdataset": []}
            for _ in range(options.rounds):
                start = time.perf_counter()
                size = our_bytes(url, fresh(), options.images)
                raw["store, medclip"].append(size / 1e6 / (time.perf_counter() - start))
                start = time.perf_counter()
                size = their_bytes(urls)
                raw["store, webdataset"].append(size / 1e6 / (time.perf_counter() - start))
        finally:
            server.kill()
            server.wait()
    assert hashes["store, medclip"] == hashes["disk, medclip"], "the batches differ"
    print(f"{options.images} JPEGs in {len(tars)} tars of {largest / 1e6:.1f} MB, {options.latency_ms:g} ms a request")
    for side, rates in speeds.items():
        asked, sent = counted[side]
        print(
            f"  {side}: {statistics.median(rates):.0f} images/s ({min(rates):.0f} to {max(rates):.0f}), cold; "
            f"{asked / len(tars):.2f} requests a shard, {sent / num_bytes:.3f} of its bytes"
        )
    for side, rates in raw.items():
        print(f"  {side}, bytes only: {statistics.median(rates):.0f} MB/s ({min(rates):.0f} to {max(rates):.0f})")
    asked, sent = counted["store, medclip"]
    ratio = statistics.median(speeds["store, medclip"]) / statistics.median(speeds["store, webdataset"])
    print(f"  ratio {ratio:.2f}, goal 1")
    return 0 if ratio >= 1 and asked <= 2 * len(tars) and sent <= num_bytes else 1


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    sys.exit(main())
