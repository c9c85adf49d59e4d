"""The hashes by which what was signed is checked: of the page, of the tables and of what was asked.

The page shows all three. Its own cannot stand in it and be a hash of it, so it is that of all other lines:
`grep -v 'id="page-sha256"' report.html | sha256sum`. That of the tables is the hash of the list of their hashes:
`LC_ALL=C sha256sum *.csv | sha256sum`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medclip.auditing.provenance.origin import recipe_hash
from medclip.auditing.result import JSON, AuditResult, read_result
from medclip.errors import MedclipError, Reason
from medclip.files.tables.write import csv_bytes
from medclip.models.packs.manifest import file_sha256
from medclip.result import Result

PAGE = "report.html"
MARK = 'id="page-sha256"'
"""Stands in the one line of the page that its hash leaves out."""
_HASH = re.compile(r"\b[0-9a-f]{64}\b")


def tables_hash(hashes: Mapping[str, str]) -> str:
    """Hash the hashes of the CSV tables, as `sha256sum *.csv | sha256sum` does.

    Args:
        hashes: SHA-256 of files by their names; others than CSV do not count.
    """
    lines = [f"{digest}  {name}\n" for name, digest in sorted(hashes.items()) if name.endswith(".csv")]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def page_hash(page: str) -> str:
    """Hash a page without the line that shows its hash."""
    lines = [line for line in page.split("\n") if MARK not in line]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def seal(hashes: Mapping[str, str], result: AuditResult) -> dict[str, str]:
    """Return the hashes of tables and recipe; that of the page is added when it is written.

    Args:
        hashes: SHA-256 of the files of tables, by their names.
        result: The audit.
    """
    parquet = {name: digest for name, digest in sorted(hashes.items()) if name.endswith(".parquet")}
    recipe = recipe_hash(result.provenance.get("recipe"))
    return {"tables": tables_hash(hashes), "recipe": recipe, **parquet}


@dataclass(frozen=True, repr=False)
class Checked(Result):
    """What became of a folder of an audit since it was written."""

    checks: Mapping[str, bool]
    """Whether each part is as it was."""

    @property
    def ok(self) -> bool:
        """Whether all of it is."""
        return all(self.checks.values())

    def _facts(self) -> Mapping[str, object]:
        return {name: "as it was" if same else "CHANGED" for name, same in self.checks.items()}

    def _rows(self, most: int | None = None) -> list[dict[str, object]]:
        return [{"what": name, "as it was": same} for name, same in self.checks.items()][:most]


def verify_audit(folder: str | Path) -> Checked:
    """Check that page, tables and recipe of an audit are what `audit.json` and the page say.

    Args:
        folder: Folder of the audit.

    Raises:
        MedclipError: MISSING_FILE, CORRUPT for what is no audit; WRONG_USE for one that was written without hashes.
    """
    folder = Path(folder)
    result = read_result(folder)
    sealed = result.sealed
    if not sealed:
        raise MedclipError(Reason.WRONG_USE, "this audit was written without hashes.", where=folder / JSON)
    files = {p.name: file_sha256(p) for p in sorted(folder.iterdir()) if p.suffix in (".csv", ".parquet")}
    tables = {name: hashlib.sha256(csv_bytes(table)).hexdigest() for name, table in result.tables().items()}
    page = (folder / PAGE).read_text(encoding="utf-8") if (folder / PAGE).is_file() else ""
    line = next((line for line in page.split("\n") if MARK in line), "")
    shown = set(_HASH.findall(page[page.find('id="signature"') :]))
    return Checked(
        {
            "page": page_hash(page) == sealed.get("page"),
            "hash that the page shows of itself": _HASH.findall(line) == [sealed.get("page")],
            "tables (CSV)": tables_hash(files) == sealed.get("tables"),
            "tables (Parquet)": all(files.get(f"{name}.parquet") == sealed.get(f"{name}.parquet") for name in tables),
            "tables of audit.json": all(files.get(f"{name}.csv") == digest for name, digest in tables.items()),
            "recipe": recipe_hash(result.provenance.get("recipe")) == sealed.get("recipe"),
            "hashes that the page shows": {sealed.get("tables"), sealed.get("recipe")} <= shown,
        }
    )
