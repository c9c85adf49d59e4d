"""Look for known vulnerabilities of the packages of an environment, by pip-audit with OSV's records.

With --advisories nobody is asked: pip-audit speaks to a server on the loopback that knows the file and nothing else.
Exit code 1 for a finding. An audit that cannot be done says why, and is an error only with --required.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import threading
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

OSV = "api.osv.dev"
_WAIT_S = 5

Advisories = Mapping[str, list[dict[str, Any]]]
"""Records of OSV (https://ossf.github.io/osv-schema/) by the canonical name of a package of PyPI."""


def read_advisories(source: Path) -> Advisories:
    """Read records of OSV.

    Args:
        source: A zip of JSON files, as OSV exports them; a folder of them; or a file with one record or a list of them.
    """
    by_name: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for text in _texts(source):
        values = json.loads(text)
        for record in values if isinstance(values, list) else [values]:
            names = {
                canonicalize_name(affected["package"]["name"])
                for affected in record.get("affected", ())
                if affected.get("package", {}).get("ecosystem") == "PyPI"
            }
            for name in names:
                by_name[name].append(record)
    return dict(by_name)


def _texts(source: Path) -> Iterator[bytes]:
    if source.is_dir():
        yield from (path.read_bytes() for path in sorted(source.glob("*.json")))
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            yield from (archive.read(name) for name in archive.namelist() if name.endswith(".json"))
    else:
        yield source.read_bytes()


def is_affected(record: Mapping[str, Any], name: str, version: str) -> bool:
    """Return whether a version of a package is among those that a record lists, or lies in one of its ranges."""
    for affected in record.get("affected", ()):
        if canonicalize_name(affected["package"]["name"]) != name:
            continue
        if version in affected.get("versions", ()):
            return True
        if any(_is_within(part, version) for part in affected.get("ranges", ()) if part.get("type") == "ECOSYSTEM"):
            return True
    return False


def _is_within(part: Mapping[str, Any], version: str) -> bool:
    """Walk over the events of a range in order of their versions, as OSV's specification evaluates them."""
    try:
        ours, steps = Version(version), []
        for event in part.get("events", ()):
            ((kind, text),) = event.items()
            steps.append((Version("0" if text == "0" else text), kind))
    except (InvalidVersion, ValueError):
        return False
    inside = False
    for at, kind in sorted(steps, key=lambda step: step[0]):
        if kind == "introduced" and ours >= at:
            inside = True
        elif (kind == "fixed" and ours >= at) or (kind == "last_affected" and ours > at):
            inside = False
    return inside


@contextmanager
def serving(advisories: Advisories) -> Iterator[str]:
    """Answer OSV's queries on the loopback from records; yield the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = canonicalize_name(query["package"]["name"])
            records = [r for r in advisories.get(name, ()) if is_affected(r, name, query["version"])]
            body = json.dumps({"vulns": records} if records else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def audit(url: str | None, environment: Path | None) -> int:
    """Run pip-audit and return its exit code: 0 where nothing is known, 1 for a finding.

    Args:
        url: Where OSV's queries go; None for OSV.dev.
        environment: The folder of packages (site-packages); None for this environment's.
    """
    words = ["-m", "pip_audit", "--vulnerability-service", "osv", "--progress-spinner", "off", "--skip-editable"]
    words += ["--osv-url", url] if url else []
    words += ["--path", str(environment)] if environment else ["--local"]
    return subprocess.run([sys.executable, *words], check=False).returncode


def is_reachable(host: str) -> bool:
    """Return whether a web server can be connected to within some seconds."""
    try:
        socket.create_connection((host, 443), _WAIT_S).close()
    except OSError:
        return False
    return True


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, audit, say why it was not done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--advisories", type=Path, help="OSV's records: a zip, a folder, a file; nobody is asked then")
    parser.add_argument("--environment", type=Path, help="folder of the packages; this environment's where left out")
    parser.add_argument("--required", action="store_true", help="an audit that cannot be done is an error")
    options = parser.parse_args(argv)
    if options.advisories is not None:
        advisories = read_advisories(options.advisories)
        print(f"{sum(map(len, advisories.values())):,} advisories for {len(advisories):,} packages.", flush=True)
        with serving(advisories) as url:
            return audit(url, options.environment)
    if not is_reachable(OSV):
        print(
            f"Not audited: {OSV} cannot be reached. Name a file of its records with --advisories (see README.md here)."
        )
        return int(options.required)
    return audit(None, options.environment)


if __name__ == "__main__":
    sys.exit(main())
