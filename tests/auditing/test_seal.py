"""What was signed can be checked, by the command and by hand."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

import medclip
from medclip.auditing.provenance import page_hash, tables_hash, verify_audit
from medclip.auditing.result import AuditResult, write_json
from medclip.errors import MedclipError
from tests.kits.audit_tables import audit_table


@pytest.fixture
def audited(tmp_path: Path) -> Path:
    """A small audit."""
    out = tmp_path / "audit"
    medclip.audit(audit_table(60), by=["sex"], num_resamples=100, num_permutations=100, out=out)
    return out


def failed(folder: Path) -> set[str]:
    return {name for name, same in verify_audit(folder).checks.items() if not same}


def test_an_audit_as_it_was_written_is_in_order_and_the_hand_finds_the_same(audited: Path):
    assert verify_audit(audited).ok
    page = (audited / "report.html").read_bytes()
    assert page.count(b'id="page-sha256"') == 1
    assert page.endswith(b"\n")  # grep would add it
    own = b"".join(line for line in page.splitlines(keepends=True) if b'id="page-sha256"' not in line)
    assert hashlib.sha256(own).hexdigest().encode() in page
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in sorted(audited.glob("*.csv"))]
    assert hashlib.sha256("".join(lines).encode()).hexdigest().encode() in page


@pytest.mark.parametrize(
    ("file", "old", "new", "parts"),
    [
        ("report.html", b"Not a medical device", b"A medical device", {"page"}),
        ("metrics.csv", b"auroc", b"AUROC", {"tables (CSV)", "tables of audit.json"}),
        ("audit.json", b'"metric": "auroc"', b'"metric": "auprc"', {"tables of audit.json"}),
        ("audit.json", b'"seed": 0', b'"seed": 1', set()),  # the page shows it; the JSON alone is no part of the seal
    ],
)
def test_what_was_changed_is_named(audited: Path, file: str, old: bytes, new: bytes, parts: set[str]):
    content = (audited / file).read_bytes()
    assert old in content
    (audited / file).write_bytes(content.replace(old, new))
    assert failed(audited) == parts


def test_a_table_in_its_other_form_and_the_line_of_the_page_are_checked_too(audited: Path):
    (audited / "gaps.parquet").write_bytes(b"")
    page = (audited / "report.html").read_text()
    (audited / "report.html").write_text(re.sub(r'(id="page-sha256".*?<code>)\w{64}', r"\g<1>" + "a" * 64, page))
    assert failed(audited) == {"tables (Parquet)", "hash that the page shows of itself"}


def test_the_hash_of_a_page_leaves_its_own_line_out():
    page = 'a\n<p id="page-sha256">x</p>\nb\n'
    assert page_hash(page) == hashlib.sha256(b"a\nb\n").hexdigest() == page_hash(page.replace("x", "y"))
    assert (
        tables_hash({"b.csv": "2", "a.csv": "1", "c.json": "3"}) == hashlib.sha256(b"1  a.csv\n2  b.csv\n").hexdigest()
    )


def test_what_was_written_without_hashes_cannot_be_checked(tmp_path: Path):
    write_json(AuditResult(), tmp_path)
    with pytest.raises(MedclipError, match="written without hashes"):
        verify_audit(tmp_path)


def test_what_was_asked_cannot_be_changed_afterwards(tmp_path: Path):
    audit_table(60).to_csv(tmp_path / "table.csv", index=False)
    out = tmp_path / "audit"
    medclip.audit(tmp_path / "table.csv", by=["sex"], num_resamples=100, num_permutations=100, threshold=0.5, out=out)
    assert verify_audit(out).ok
    written = json.loads((out / "audit.json").read_text())
    assert written["provenance"]["recipe"]["threshold"] == 0.5
    written["provenance"]["recipe"]["threshold"] = 0.4
    (out / "audit.json").write_text(json.dumps(written))
    assert failed(out) == {"recipe"}
