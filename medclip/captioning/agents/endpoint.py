"""An agent behind an OpenAI-compatible endpoint: a hospital's own vLLM, llama.cpp or TGI, or any other.

Patches leave this process for the address that was named, and for no other: nothing follows a redirect, and no proxy of
the environment is used. A patch is sent as PNG pixels: no metadata, no name, no identifier.

An endpoint that is busy or gone for a moment is asked again after a pause; one that stays away ends the run with an
error that says so, and the same command goes on where it was. An answer that is no use costs its own patch.
"""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from medclip.captioning.agents.agent import AgentRefused, Answer, CaptionedPatch, Room, Usage
from medclip.captioning.agents.requests import VERSION, AskingAgent, summarise_request
from medclip.errors import MedclipError, Reason
from medclip.shards.stored_image import encode

_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_WRONG = frozenset({301, 302, 303, 307, 308, 401, 403, 404, 405})
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class EndpointAgent(AskingAgent):
    """Asks an endpoint."""

    url: str
    """Of its API, such as http://127.0.0.1:8000/v1; `/chat/completions` is put behind it."""
    model: str
    """Name of the model there."""
    key: str = field(default="", repr=False)
    """Sent as a bearer token; never written down."""
    timeout_s: float = 120.0
    most_tokens: int = 400
    """Of one answer."""
    at_once: int = 8
    waits_s: tuple[float, ...] = (1.0, 4.0, 15.0)
    """Pauses before it is asked again; after the last it counts as gone."""
    seed: int = 0
    name: str = "endpoint"
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the address.

        Raises:
            MedclipError: WRONG_USE.
        """
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or not self.model:
            raise MedclipError(
                Reason.WRONG_USE,
                "an endpoint is an http or https address without a user name, and needs the name of a model.",
                hint="For instance --endpoint http://127.0.0.1:8000/v1 --endpoint-model NAME.",
            )

    @property
    def identity(self) -> Mapping[str, Any]:
        """Model, seed and wording of the requests; where the endpoint is may change during a run."""
        return {
            "agent": self.name,
            "model": self.model,
            "most_tokens": self.most_tokens,
            "seed": self.seed,
            "requests": VERSION,
        }

    def summarise(self, text: str, room: Room) -> Answer:
        """Ask for a caption, of the text alone; once more where it is too long."""
        answer = self._ask(summarise_request(text, room.most))
        if room.fits(answer.text):
            return answer
        again = self._ask(summarise_request(answer.text, round(room.most * 0.7)))
        return Answer(again.text, answer.usage + again.usage)

    def _ask(self, request: str, patch: CaptionedPatch | None = None) -> Answer:
        content: list[dict[str, Any]] = [{"type": "text", "text": request}]
        if patch is not None:
            png = base64.b64encode(encode(patch.pixels, "png", 95)).decode()
            content.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png}"}})
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self.most_tokens,
            "temperature": 0,
            "seed": self.seed,
        }
        started = time.monotonic()
        values = self._post(json.dumps(body).encode())
        try:
            text = values["choices"][0]["message"]["content"]
            used = values.get("usage") or {}
            tokens = int(used.get("prompt_tokens") or 0), int(used.get("completion_tokens") or 0)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise AgentRefused("the answer has no message") from None
        if not isinstance(text, str):
            raise AgentRefused("the answer has no text")
        return Answer(text, Usage(1, *tokens, time.monotonic() - started))

    def _post(self, body: bytes) -> Any:
        """Send a request, again where that may help; the answer's JSON."""
        fault = ""
        for wait in (*self.waits_s, None):
            try:
                status, content = self._send(body)
            except (OSError, http.client.HTTPException) as e:
                fault = type(e).__name__
            else:
                if status == 200:
                    try:
                        return json.loads(content)
                    except ValueError:
                        raise AgentRefused("the answer is no JSON") from None
                if status in _WRONG:
                    raise MedclipError(
                        Reason.WRONG_USE,
                        f"the endpoint answers {status} for the model {self.model!r}.",
                        where=self._place,
                        hint="Check the address, the name of the model and MEDCLIP_ENDPOINT_KEY.",
                    )
                if status not in _BUSY:
                    raise AgentRefused(f"the endpoint answers {status}")
                fault = f"status {status}"
            if wait is not None:
                self.sleep(wait)
        raise MedclipError(
            Reason.READ_ERROR,
            f"the endpoint does not answer ({fault}, asked {len(self.waits_s) + 1} times).",
            where=self._place,
            hint="What is done is kept: once it answers, the same command goes on.",
        )

    def _send(self, body: bytes) -> tuple[int, bytes]:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        assert parts.hostname is not None
        connection = kind(parts.hostname, parts.port, timeout=self.timeout_s)
        try:
            headers = {"Content-Type": "application/json"}
            if self.key:
                headers["Authorization"] = f"Bearer {self.key}"
            connection.request("POST", f"{parts.path.rstrip('/')}/chat/completions", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(_MOST_BYTES)
        finally:
            connection.close()

    @property
    def _place(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"
