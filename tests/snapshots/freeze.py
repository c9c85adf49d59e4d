"""Write frozen.json: run every case of `tests.snapshots.cases`, and keep what it says and leaves, as fingerprints.

python -m tests.snapshots.freeze [--only CASE]... [--check] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import tempfile
import time
from pathlib import Path

from tests.snapshots.cases import ALL
from tests.snapshots.driver import REPOSITORY, Driver
from tests.snapshots.run_case import FROZEN, differences, run_case


def main() -> int:
    """Freeze, or compare with what is frozen; return 1 where a case could not be run, or differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(ALL), help="Run this case alone; repeatable.")
    parser.add_argument("--check", action="store_true", help="Write nothing; say what differs from frozen.json.")
    parser.add_argument("--keep", type=Path, help="Folder to run in; it is left as it is at the end.")
    parser.add_argument("--into", type=Path, default=FROZEN, help="File to write, in the place of frozen.json.")
    asked = parser.parse_args()
    frozen = json.loads(asked.into.read_text(encoding="utf-8")) if asked.into.exists() else {"cases": {}}
    cases = dict(frozen["cases"]) if asked.only else {}
    num_faults = 0
    with tempfile.TemporaryDirectory(prefix="medclip-snapshots-") as temporary:
        root = asked.keep or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        with Driver(root.resolve()) as driver:
            for name in asked.only or ALL:
                begun = time.monotonic()
                try:
                    cases[name] = run_case(name, driver, root.resolve())
                except Exception as error:  # the others are still run
                    print(f"{name}: {error!r}"[:3000])
                    num_faults += 1
                    continue
                print(f"{name}: {time.monotonic() - begun:.1f} s", flush=True)
                differing = differences(frozen["cases"].get(name, {}), cases[name]) if asked.check else []
                num_faults += bool(differing)
                for line in differing:
                    print(f"  {line[:400]}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{used.ru_utime + used.ru_stime:.0f} s of processor time")
    if not asked.check:
        commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, text=True).strip()
        # Of a case that was frozen alone, later than the others, it says at which commit.
        later = {**frozen.get("later", {}), **dict.fromkeys(asked.only, commit)} if asked.only else {}
        first = frozen.get("commit", commit) if asked.only else commit
        content = {"commit": first, "later": later, "cases": {name: cases[name] for name in ALL if name in cases}}
        asked.into.write_text(json.dumps(content, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{asked.into}: {asked.into.stat().st_size} bytes")
    return int(num_faults > 0)


if __name__ == "__main__":
    raise SystemExit(main())
