"""The audit of dependencies without a network, and the bill of materials."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pipelines.supply_chain import audit, sbom


def _record(name: str = "Zipp.er", **affected: Any) -> dict[str, Any]:
    facts = {"id": "TEST-1", "schema_version": "1.6.0", "published": "2026-01-01T00:00:00Z", "summary": "It unpacks."}
    return facts | {"affected": [{"package": {"name": name, "ecosystem": "PyPI"}, **affected}]}


def _range(*events: dict[str, str]) -> dict[str, Any]:
    return _record(ranges=[{"type": "ECOSYSTEM", "events": list(events)}])


@pytest.mark.parametrize(
    ("version", "inside"),
    [("0.9", False), ("1.0", True), ("1.4.9", True), ("1.5", False), ("2.1", True), ("2.2", False)],
)
def test_a_version_is_affected_from_where_a_fault_came_in_to_where_it_was_mended(version: str, inside: bool) -> None:
    events = ({"introduced": "2.0"}, {"last_affected": "2.1"}, {"introduced": "1.0"}, {"fixed": "1.5"})
    assert audit.is_affected(_range(*events), "zipp-er", version) is inside
    assert not audit.is_affected(_range(*events), "another", version)
    assert audit.is_affected(_record(versions=[version]), "zipp-er", version)
    assert audit.is_affected(_range({"introduced": "0"}), "zipp-er", version)
    assert not audit.is_affected(_range({"introduced": "no version"}), "zipp-er", version)


def test_advisories_are_read_from_a_zip_a_folder_and_a_file(tmp_path: Path) -> None:
    text = json.dumps(_record())
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "TEST-1.json").write_text(text)
    (tmp_path / "list.json").write_text(f"[{text}]")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("TEST-1.json", text)
    for name in ("folder", "list.json", "all.zip"):
        assert audit.read_advisories(tmp_path / name) == {"zipp-er": [_record()]}


def test_an_audit_that_nobody_can_be_asked_for_says_so(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(audit, "is_reachable", lambda _: False)
    assert audit.main([]) == 0
    assert audit.main(["--required"]) == 1
    assert capsys.readouterr().out.count("Not audited: api.osv.dev cannot be reached.") == 2


@pytest.mark.slow
@pytest.mark.parametrize(("version", "code"), [("1.4", 1), ("1.5", 0)])
def test_pip_audit_finds_what_a_file_of_advisories_knows_and_asks_nobody_else(
    tmp_path: Path, repository: Path, version: str, code: int
) -> None:
    pytest.importorskip("pip_audit")
    site = tmp_path / "site" / f"zipp_er-{version}.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text(f"Metadata-Version: 2.1\nName: zipp.er\nVersion: {version}\n")
    (tmp_path / "known.json").write_text(json.dumps(_range({"introduced": "1.0"}, {"fixed": "1.5"})))
    words = ["-m", "pipelines.supply_chain.audit", "--advisories", str(tmp_path / "known.json")]
    done = subprocess.run(
        [sys.executable, *words, "--environment", str(tmp_path / "site")],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    assert "1 advisories for 1 packages" in done.stdout
    assert ("TEST-1" in done.stdout) == bool(code)


@pytest.mark.nightly
def test_the_bill_of_materials_names_every_package_that_medclip_asks_for(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx_py")
    from medclip.version import __version__

    num = sbom.write_sbom(tmp_path / "dist" / "sbom.cdx.json", Path(sys.executable))
    bill = json.loads((tmp_path / "dist" / "sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == "medclip-imaging"
    assert bill["metadata"]["component"]["version"] == __version__
    assert num == len(bill["components"])
    named = {component["name"].lower().replace("_", "-"): component for component in bill["components"]}
    assert {"torch", "numpy", "pydicom", "pillow", "open-clip-torch"} <= named.keys()
    assert all(component.get("version") for component in bill["components"])
