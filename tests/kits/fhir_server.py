"""A small FHIR server on loopback: it creates resources by their identifiers, and can fail on demand."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JSON = "application/fhir+json"


@dataclass
class FhirAnswer:
    """What goes back for one request."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    num_bytes: int | None = None
    """Where the connection breaks."""


@dataclass
class SmallFhir:
    """What a server has, and what it was asked."""

    url: str = ""
    version: str = "4.3.0"
    token: str = ""
    """Without it a transaction is refused with 401; "" refuses nobody."""
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Resources by their identifiers, which are unique."""
    refuses: Callable[[dict[str, Any]], bool] = lambda _: False
    """Whether a resource of a bundle is not taken."""
    before: list[FhirAnswer] = field(default_factory=list)
    """Answers to the next transactions, which do nothing."""
    after: list[Callable[[FhirAnswer], FhirAnswer]] = field(default_factory=list)
    """What becomes of the answers to the next transactions, which are carried out."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and authorisation of each request."""
    capabilities: dict[str, Any] = field(default_factory=dict)

    @property
    def kinds(self) -> list[str]:
        """The kinds of what it has, sorted."""
        return sorted(resource["resourceType"] for resource in self.kept.values())

    def get(self) -> FhirAnswer:
        """Answer with the capability statement."""
        stated = {"resourceType": "CapabilityStatement", "fhirVersion": self.version, **self.capabilities}
        return FhirAnswer(body=json.dumps(stated).encode())

    def post(self, body: bytes, authorisation: str) -> FhirAnswer:
        """Carry out a bundle."""
        if self.token and authorisation != f"Bearer {self.token}":
            return FhirAnswer(401, b'{"resourceType": "OperationOutcome"}')
        if self.before:
            return self.before.pop(0)
        entries = [self._create(entry) for entry in json.loads(body)["entry"]]
        bundle = {"resourceType": "Bundle", "type": "transaction-response", "entry": entries}
        answer = FhirAnswer(body=json.dumps(bundle).encode())
        return self.after.pop(0)(answer) if self.after else answer

    def _create(self, entry: dict[str, Any]) -> dict[str, Any]:
        resource, request = entry["resource"], entry["request"]
        unique = request["ifNoneExist"].partition("|")[2]
        assert request["method"] == "POST"
        assert unique in [identifier["value"] for identifier in resource["identifier"]]
        if self.refuses(resource):
            return {"response": {"status": "422 Unprocessable Entity"}}
        is_new = unique not in self.kept
        self.kept.setdefault(unique, resource)
        return {"response": {"status": "201 Created" if is_new else "200 OK"}}


@contextmanager
def fhir_server(**options: Any) -> Iterator[SmallFhir]:
    """Serve on a free port of loopback."""
    server = SmallFhir(**options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(server.get())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(server.post(body, self.headers.get("Authorization") or ""))

        def _answer(self, answer: FhirAnswer) -> None:
            server.asked.append((self.command, self.path, self.headers.get("Authorization") or ""))
            self.send_response(answer.status)
            for name, value in {"Content-Type": JSON, **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(answer.body[: answer.num_bytes])

        def log_message(self, *_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listening.server_port}/fhir"
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()
