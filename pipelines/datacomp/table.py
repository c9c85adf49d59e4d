"""Last stage: the tables, from the results of runs alone.

Usage: python pipelines/datacomp/table.py RUN/SCALE
"""

from pathlib import Path


def write_tables(folder: Path) -> None: ...
