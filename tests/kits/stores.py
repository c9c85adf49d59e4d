"""Stores: one in memory; on loopback moto's S3 server, and a web server that counts requests and can fail on demand."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from medclip.files import stores
from medclip.files.stores import RemotePath, write_object

KEYS = {"AWS_ACCESS_KEY_ID": "medclip", "AWS_SECRET_ACCESS_KEY": "not-so-secret", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def memory_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A store in memory, empty before and after; what fails is tried again at once."""
    monkeypatch.setattr(stores, "RETRY_PAUSES_S", (0.01,))
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    yield store
    store.store.clear()


def put(folder: Path, url: str) -> str:
    """Copy the files of a folder to a store; return the URL."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            write_object(RemotePath(f"{url}/{path.relative_to(folder).as_posix()}"), path)
    return url


@contextmanager
def s3_server() -> Iterator[str]:
    """Start moto's S3 server in a process of its own; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def upload(folder: Path, bucket: str, endpoint: str) -> str:
    """Copy a folder into a new bucket; its URL."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=bucket)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            client.put_object(Bucket=bucket, Key=f"data/{path.relative_to(folder).as_posix()}", Body=path.read_bytes())
    return f"s3://{bucket}/data"


class WebStore:
    """A folder behind HTTP on loopback.

    `requests` lists (path, first byte, bytes sent) of what was read. `faults` are taken from the front, one for each
    request: "500", "403", "cut" (the connection ends in the middle of the body), "short" (fewer bytes than asked for),
    or "" for none.
    """

    def __init__(self, folder: Path, latency_s: float = 0.0, port: int = 0) -> None:
        self.folder, self.latency_s, self._port = folder, latency_s, port
        self.requests: list[tuple[str, int, int]] = []
        self.faults: list[str] = []
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.do_GET(body=False)

            def do_GET(self, body: bool = True) -> None:
                if store.is_gone:  # a connection that was kept open
                    self.close_connection = True
                    return None
                time.sleep(store.latency_s)
                path = store.folder / self.path.lstrip("/")
                if path.is_dir():
                    links = "".join(f'<a href="{name}">{name}</a>' for name in sorted(os.listdir(path)))
                    return self._send(200, links.encode(), {}, body)
                if not path.is_file():
                    return self._send(404, b"", {}, body)
                fault = store.faults.pop(0) if body and store.faults else ""
                if fault in ("500", "403"):
                    return self._send(int(fault), b"no", {}, body)
                size, wanted = path.stat().st_size, self.headers.get("Range", "")
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start, end = int(first or 0), min(int(last or size), size - 1) + 1
                if start >= size:
                    return self._send(416, b"", {}, body)
                with path.open("rb") as file:
                    file.seek(start)
                    data = file.read(end - start)
                if body:
                    store.requests.append((self.path, start, len(data)))
                place = {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
                if fault == "short":
                    data = data[: len(data) // 2]
                return self._send(206 if wanted else 200, data, place, body, cut=fault == "cut")

            def _send(self, status: int, data: bytes, headers: dict[str, str], body: bool, cut: bool = False) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), "Accept-Ranges": "bytes", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if body:
                    self.wfile.write(data[: len(data) // 2] if cut else data)
                self.close_connection = cut

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # a client that gave up is no fault of the server
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.is_gone = False

    def stop(self) -> None:
        self.is_gone = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> WebStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
