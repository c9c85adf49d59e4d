"""Shorten the report of the example studies to one study of each modality, for the picture in the README.

Usage: python -m pipelines.docs_site.picture [REPORT_FOLDER]

Writes `picture.html` beside `report.html`: its head, and of the studies the first of each modality. No figure is
touched.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_STUDY = re.compile(r"<article class=\"study.*?</article>\n?", re.S)
_MODALITY = re.compile(r"<img[^>]* alt=\"([^\",]+)")
_EXPLAINED = re.compile(r"(?<=<h2>Studies</h2>\n).*?(?=<article)", re.S)


def shortened(page: str) -> str:
    """Return a report with the first study of each modality, without what explains the list."""
    seen: set[str] = set()

    def kept(match: re.Match[str]) -> str:
        named = _MODALITY.search(match[0])
        modality = named[1] if named else ""
        is_new = modality not in seen
        seen.add(modality)
        return match[0] if is_new else ""

    return _STUDY.sub(kept, _EXPLAINED.sub("", page))


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-report")
    report = (folder / "report.html").read_text(encoding="utf-8")
    (folder / "picture.html").write_text(shortened(report), encoding="utf-8")
