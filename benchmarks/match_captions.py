"""How fast entries are found in captions and captions balanced, beside a loop and the library alone, in one run.

    python benchmarks/match_captions.py --captions 200000 --entries 200000

Captions of words that are drawn, frequent ones more often, and entries of one to four such words, without a release of
UMLS. Each part runs in a process of its own, for its CPU time and the most memory it had. The naive loop asks of every
entry whether it is a part of the text, and does so for few captions. The library alone looks for the same entries in
the same texts and keeps nothing. `--select` measures `medclip pairs select` over a table of the captions instead, five
to a patient, from reading to the file of the selection, with `--polarity`; each tenth caption begins with "no". Goals:
100 times the naive loop, at most twice the library's time, below 2 GB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import Process
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import medclip
from medclip.pairs.selection.balance import entry_counts, keep_probabilities, probabilities, t_of_share
from medclip.text.checks.matching import match_texts
from medclip.text.checks.metadata import Metadata, plain_metadata, spaced

_PARTS = ("medclip", "library", "naive")
_SELECT = "select"
_WORDS = 50_000
_NAIVE = 200
"""Captions that the naive loop is given."""
_AT_ONCE = 1 << 14


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=50_000)
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--select", action="store_true")
    parser.add_argument("--polarity", choices=("all", "affirmed", "split"), default="all")
    parser.add_argument("--part", choices=(*_PARTS, _SELECT), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(_measure(args.part, args.captions, args.entries, args.polarity)))
        return
    if args.select:
        print(_in_process(_SELECT, args))
        return
    parts = {part: _in_process(part, args) for part in _PARTS}
    of_million = {part: values["cpu_s"] / values["captions"] * 1e6 for part, values in parts.items()}
    print(f"{args.captions:,} captions, {args.entries:,} entries: {parts['medclip']['mentions']:,} mentions")
    for part, values in parts.items():
        ratio = of_million[part] / of_million["medclip"]
        print(f"{part:8} {of_million[part]:12,.1f} CPU s a million ({ratio:,.2f} of medclip), {values['mb']:,.0f} MB")
    print(f"of medclip's time {parts['medclip']['balance_s']:.2f} s are the balancing")


def _in_process(part: str, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--part", part]
    command += ["--captions", str(args.captions), "--entries", str(args.entries), "--polarity", args.polarity]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _drawn(num: int, longest: int, seed: int) -> list[str]:
    """Return texts of words that are drawn by Zipf's law."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, num)
    numbers = np.minimum(rng.zipf(1.2, int(lengths.sum())), _WORDS).tolist()
    ends = np.cumsum(lengths).tolist()
    starts = [0, *ends[:-1]]
    return [" ".join(f"w{n}" for n in numbers[a:b]) for a, b in zip(starts, ends, strict=True)]


def _measure(part: str, num_captions: int, num_entries: int, polarity: str) -> dict[str, Any]:
    if part == _SELECT:
        return _selected(num_captions, num_entries, polarity)
    num = num_captions if part != "naive" else _NAIVE
    starts = range(0, num, _AT_ONCE)
    texts = pa.chunked_array(
        [pa.array(_drawn(min(_AT_ONCE, num - start), 30, start), pa.large_string()) for start in starts]
    )
    metadata = plain_metadata(list(dict.fromkeys(_drawn(2 * num_entries, 4, 1)))[:num_entries], "drawn")
    makers: dict[str, Callable[[Any, Metadata], tuple[int, float]]]
    makers = {"medclip": _by_medclip, "library": _by_library, "naive": _by_loop}
    Path("/proc/self/clear_refs").write_text("5")  # drawing has its own peak, which is forgotten here
    start = time.process_time()
    mentions, balance_s = makers[part](texts, metadata)
    cpu_s = time.process_time() - start
    return {"cpu_s": cpu_s, "captions": len(texts), "mentions": mentions, "balance_s": balance_s, "mb": _peak_mb()}


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1000


def _selected(num_captions: int, num_entries: int, polarity: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        table, entries = Path(folder, "pile.parquet"), Path(folder, "entries.txt")
        drawing = Process(target=_write_pile, args=(table, entries, num_captions, num_entries))
        drawing.start()
        drawing.join()
        start = time.process_time()
        steps = [{"balance": {"metadata": str(entries), "polarity": polarity}}]
        report = medclip.pairs.select(table, steps={"steps": steps}, out=Path(folder, "kept.parquet"))
        cpu_s = time.process_time() - start
    return {"cpu_s": cpu_s, "captions": report.num_pairs, "kept": report.num_kept, "mb": _peak_mb()}


def _write_pile(table: Path, entries: Path, num_captions: int, num_entries: int) -> None:
    """Write captions and entries, in a process whose memory is not counted."""
    entries.write_text("\n".join(list(dict.fromkeys(_drawn(2 * num_entries, 4, 1)))[:num_entries]))
    schema = pa.schema([(name, pa.string()) for name in ("file", "patient", "caption")])
    with pq.ParquetWriter(table, schema) as writer:
        for start in range(0, num_captions, _AT_ONCE):
            captions = _drawn(min(_AT_ONCE, num_captions - start), 30, start)
            captions[::10] = [f"no {caption}" for caption in captions[::10]]
            rows = range(start, start + len(captions))
            columns = [[f"{row}.png" for row in rows], [f"p{row // 5}" for row in rows], captions]
            writer.write_table(pa.table(columns, schema=schema))


def _by_medclip(texts: Any, metadata: Metadata) -> tuple[int, float]:
    matches = match_texts(texts, metadata)
    start = time.process_time()
    counts = entry_counts(matches.index_M2, len(metadata))
    p = probabilities(counts, t_of_share(counts[counts > 0], 0.06))
    keep_probabilities(matches.index_M2, p, len(texts))
    return len(matches.index_M2), time.process_time() - start


def _by_library(texts: Any, metadata: Metadata) -> tuple[int, float]:
    from ahocorasick_rs import AhoCorasick

    automaton = AhoCorasick([f" {entry} " for entry in metadata.entries])
    mentions = 0
    for start in range(0, len(texts), _AT_ONCE):
        block = spaced("\n".join(texts[start : start + _AT_ONCE].to_pylist()))
        mentions += len(automaton.find_matches_as_indexes(block, overlapping=True))
    return mentions, 0.0


def _by_loop(texts: Any, metadata: Metadata) -> tuple[int, float]:
    entries = [f" {entry} " for entry in metadata.entries]
    lines = [spaced(text) for text in texts.to_pylist()]
    return sum(entry in line for line in lines for entry in entries), 0.0


if __name__ == "__main__":
    main()
