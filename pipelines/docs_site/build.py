"""Build the site into site/, unless what stands there was made of the same.

Usage: python -m pipelines.docs_site.build [--again]
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

from pipelines.docs_site.execute import EXECUTED, ROOT

SITE = ROOT / "site"
INPUTS = ("docs", "medclip", "notebooks", "pipelines/docs_site")
RECORD = ".inputs.sha256"


def digest_of_inputs() -> str:
    """Return the SHA-256 of everything that the site is made of, with what the notebooks have shown."""
    digest = hashlib.sha256((ROOT / "mkdocs.yml").read_bytes())
    files = [path for folder in INPUTS for path in (ROOT / folder).rglob("*") if "builtin" not in path.parts]
    for path in (*sorted(files), *sorted(EXECUTED.glob("*.ipynb"))):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def build(*, again: bool = False) -> Path:
    """Build the site and return its folder; of two that want it at once, one waits.

    Args:
        again: Also where what stands there was made of the same.

    Raises:
        ValueError: mkdocs has found something wrong, with its words.
    """
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        digest = digest_of_inputs()
        record = SITE / RECORD
        if not again and record.exists() and record.read_text() == digest:
            return SITE
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(SITE)]
        env = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(done.stdout + done.stderr)
        record.write_text(digest)
    return SITE


def main() -> int:
    """Build it, or say what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="also where nothing has changed")
    try:
        print(f"the site: {build(again=parser.parse_args().again)}/index.html")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
