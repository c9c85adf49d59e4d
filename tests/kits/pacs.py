"""A real PACS on loopback: Orthanc from Debian's packages, in a folder of its own, gone at the end."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

ORTHANC = shutil.which("Orthanc")
INSTALL = "Orthanc is missing. Run: apt-get install orthanc orthanc-dicomweb"
_PLUGINS = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def dicomweb(url: str) -> str:
    """Return how medclip names a server that listens at a URL."""
    return f"{url.replace('http', 'dicomweb', 1)}/dicom-web"


def fill(url: str, files: Iterable[Path]) -> list[str]:
    """Store files; return what the server said of each."""
    return [ask(f"{url}/instances", file.read_bytes())["Status"] for file in files]


@contextmanager
def orthanc(
    folder: Path, port: int = 0, dicom_port: int = 0, modalities: Mapping[str, int] | None = None
) -> Iterator[str]:
    """Start Orthanc with DICOMweb, storing below a folder; yield its URL. A folder that it stored in has its images.

    With a port for DICOM it is the AE title ORTHANC, and knows entities of loopback by their titles and ports.
    """
    port = port or free_port()
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": port,
        "DicomServerEnabled": bool(dicom_port),
        "DicomPort": dicom_port or 4242,
        "DicomAet": "ORTHANC",
        "DicomAlwaysAllowStore": True,
        "DicomModalities": {title: [title, "127.0.0.1", each] for title, each in (modalities or {}).items()},
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(_PLUGINS)] if _PLUGINS.exists() else [],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("w") as log:
        server = subprocess.Popen([str(ORTHANC), str(folder / "orthanc.json")], stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(300):
                with socket.socket() as asked:
                    if asked.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield url
        finally:
            server.terminate()
            server.wait(30)


def ask(url: str, body: bytes | None = None, **headers: str) -> Any:
    """GET, or POST a body; what was answered, as JSON values."""
    request = Request(url, body, {name.replace("_", "-"): value for name, value in headers.items()})
    with urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())
