"""Write a software bill of materials of an environment: CycloneDX 1.6, equal environments give equal bytes."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from medclip.files.output import write_file
from medclip.version import __version__

ROOT = Path(__file__).parents[2]


def write_sbom(out: Path, python: Path) -> int:
    """Write the packages of an environment, and medclip itself as what they make up.

    Args:
        out: The file.
        python: The environment's Python.

    Returns:
        How many packages there are.
    """
    words = ["-m", "cyclonedx_py", "environment", "--pyproject", str(ROOT / "pyproject.toml")]
    words += ["--mc-type", "library", "--sv", "1.6", "--of", "JSON", "--output-reproducible", "-o", "-", str(python)]
    listed = subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True).stdout
    bill = json.loads(listed)
    bill["metadata"]["component"]["version"] = __version__  # hatchling makes it, so that pyproject does not state it
    write_file(out, json.dumps(bill, indent=1, sort_keys=True) + "\n")
    return len(bill["components"])


def main() -> None:
    """Parse the arguments, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "sbom.cdx.json")
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    options = parser.parse_args()
    print(f"{write_sbom(options.out, options.python)} packages: {options.out}")


if __name__ == "__main__":
    main()
