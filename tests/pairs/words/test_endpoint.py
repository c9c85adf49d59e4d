from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from medclip.errors import MedclipError, Reason
from medclip.pairs.selection.patches import prompts_for
from medclip.pairs.words.agent import AgentRefused, CaptionedPatch, caption_patch
from medclip.pairs.words.asking_agents import EndpointAgent
from medclip.pairs.words.patch_caption_check import Room

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

ROOM = Room(77, lambda text: len(text.split()))
PIXELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
PATCH = CaptionedPatch(PIXELS, 0.5, prompts_for("colon", ["a secret finding"]))


class Server:
    """An endpoint whose answers a test writes: what it returns for the number of a request and its body."""

    def __init__(self, answer: Callable[[int, dict], tuple[int, object]]) -> None:
        self.bodies: list[dict] = []
        self.headers: list[dict[str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                number = len(server.bodies)
                server.bodies.append(body)
                server.headers.append({**self.headers, "path": self.path})
                status, content = answer(number, body)
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(answer: Callable[[int, dict], tuple[int, object]]) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def message(text: object, **usage: int) -> tuple[int, object]:
    return 200, {"choices": [{"message": {"content": text}}], "usage": usage}


def agent(server: Server, **options) -> EndpointAgent:
    waits: list[float] = []
    return EndpointAgent(server.url, "vlm", waits_s=(1.0, 4.0), sleep=waits.append, **options)


def test_a_patch_is_described_revised_and_summarised_by_three_requests(serve):
    answers = ["Glands. Necrosis.", '[{"kind": "delete", "sentence": 1}]', "Round glands in rows."]
    server = serve(lambda number, body: message(answers[number], prompt_tokens=100, completion_tokens=10))
    written = caption_patch(agent(server), PATCH, ROOM)
    assert (written.revised, written.caption) == ("Glands.", "Round glands in rows.")
    assert (written.usage.calls, written.usage.prompt_tokens, written.usage.completion_tokens) == (3, 300, 30)
    assert written.usage.seconds > 0
    assert server.headers[0]["path"] == "/v1/chat/completions"
    assert [body["temperature"] for body in server.bodies] == [0, 0, 0]


def test_the_image_is_sent_as_the_very_pixels_and_nothing_else_is(serve):
    server = serve(lambda number, body: message("Round nuclei."))
    agent(server).describe(PATCH)
    text, image = server.bodies[0]["messages"][0]["content"]
    prefix = "data:image/png;base64,"
    assert image["image_url"]["url"].startswith(prefix)
    png = base64.b64decode(image["image_url"]["url"].removeprefix(prefix))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), PIXELS)
    assert not Image.open(io.BytesIO(png)).info
    assert "secret finding" not in json.dumps(server.bodies)
    assert "8 µm wide" in text["text"]
    assert "Authorization" not in server.headers[0]


def test_a_summary_is_asked_for_without_the_image_and_again_where_it_is_too_long(serve):
    answers = ["word " * 100, "Round nuclei in rows."]
    server = serve(lambda number, body: message(answers[number]))
    assert agent(server).summarise("A text.", ROOM).text == "Round nuclei in rows."
    assert all(len(body["messages"][0]["content"]) == 1 for body in server.bodies)


def test_an_endpoint_that_is_busy_is_asked_again_after_pauses(serve):
    waits: list[float] = []
    server = serve(lambda number, body: (503, {}) if number < 2 else message("Round nuclei."))
    busy = EndpointAgent(server.url, "vlm", waits_s=(1.0, 4.0), sleep=waits.append)
    assert busy.describe(PATCH).text == "Round nuclei."
    assert waits == [1.0, 4.0]


def test_an_endpoint_that_stays_away_ends_the_run_and_says_what_to_do(serve):
    server = serve(lambda number, body: (500, {}))
    with pytest.raises(MedclipError) as error:
        agent(server).describe(PATCH)
    assert error.value.reason is Reason.READ_ERROR
    assert "does not answer (status 500, asked 3 times)" in str(error.value)
    assert "the same command goes on" in str(error.value)


def test_nobody_at_the_address_is_an_endpoint_that_does_not_answer(serve):
    server = serve(lambda number, body: message(""))
    server.close()
    server._server.server_close()
    with pytest.raises(MedclipError, match="does not answer"):
        agent(server).describe(PATCH)


@pytest.mark.parametrize("status", [401, 404, 307])
def test_a_wrong_address_or_key_is_said_at_once_and_no_redirect_is_followed(serve, status):
    server = serve(lambda number, body: (status, {}))
    with pytest.raises(MedclipError) as error:
        agent(server, key="s3cret").describe(PATCH)
    assert error.value.reason is Reason.WRONG_USE
    assert len(server.bodies) == 1
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    "answer", [(400, {}), (200, b"<html>"), (200, {"choices": []}), (200, []), message(None), message(["x"])]
)
def test_an_answer_that_is_no_use_costs_its_own_patch_only(serve, answer):
    server = serve(lambda number, body: answer if number == 0 else message("Round nuclei."))
    asked = agent(server)
    with pytest.raises(AgentRefused):
        asked.describe(PATCH)
    assert asked.describe(PATCH).text == "Round nuclei."


def test_the_key_is_sent_and_stands_nowhere_else(serve):
    server = serve(lambda number, body: message("Round nuclei."))
    asked = agent(server, key="s3cret")
    asked.describe(PATCH)
    assert server.headers[0]["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in repr(asked) + json.dumps(dict(asked.identity))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "127.0.0.1:8000", "http://", "http://me:pw@host/v1"])
def test_what_is_no_plain_address_is_refused(url):
    with pytest.raises(MedclipError, match="http or https address without a user name"):
        EndpointAgent(url, "vlm")
