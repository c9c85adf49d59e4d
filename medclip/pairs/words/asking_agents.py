"""Agents that ask a vision-language model: behind an OpenAI-compatible endpoint, or in a folder of this machine.

The image alone is described: a model that is told the findings repeats them, whatever the patch shows.

An endpoint is a hospital's own vLLM, llama.cpp or TGI, or any other. Patches leave this process for the address that
was named, and for no other: nothing follows a redirect, and no proxy of the environment is used. A patch is sent as PNG
pixels: no metadata, no name, no identifier. An endpoint that is busy or gone for a moment is asked again after a pause;
one that stays away ends the run with an error that says so, and the same command goes on where it was. An answer that
is no use costs its own patch. A model of this machine needs no network.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from medclip.errors import MedclipError, Reason
from medclip.files.output import digest_of
from medclip.pairs.selection.patches import ANY
from medclip.pairs.words.agent import AgentRefused, Answer, CaptionedPatch, Edit, Revision, Usage, sentences_of
from medclip.pairs.words.patch_caption_check import AllowedClaims, Room
from medclip.shards.stored_data import encode

VERSION = 1
"""Raised when a request is worded otherwise."""
SEEN = frozenset({"structure", "cell", "nucleus", "process"})
"""What a model that sees the image may claim; a diagnosis only where the slide's report has it."""
_KINDS = {"add", "delete", "modify"}
_FENCE = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)


def describe_request(patch: CaptionedPatch) -> str:
    """Return the request for a description."""
    width_um = patch.pixels.shape[1] * patch.mpp_um
    organ = "tissue" if patch.prompts.organ == ANY else f"{patch.prompts.organ} tissue"
    return (
        f"This is a histology patch of {organ}, {width_um:.0f} µm wide. Describe what it shows, in English and in "
        "plain sentences: cells, nuclei, architecture, stroma. State only what can be seen. Name no diagnosis, no "
        "patient, no stain other than haematoxylin and eosin, and do not speak of this request."
    )


def revise_request(text: str) -> str:
    """Return the request for edits of a description."""
    numbered = "\n".join(f"{number}. {sentence}" for number, sentence in enumerate(sentences_of(text)))
    return (
        "Compare these sentences with the image. Correct what the image does not show. Answer with a JSON list and "
        'nothing else; each entry is {"kind": "delete" | "modify" | "add", "sentence": NUMBER, "text": TEXT}. An empty '
        f"list changes nothing.\n{numbered}"
    )


def summarise_request(text: str, most_tokens: int) -> str:
    """Return the request for a caption."""
    return (
        f"Write one caption of at most {max(6, round(most_tokens * 0.55))} words from this description. Keep what "
        f"tells tissues apart. Answer with the caption alone.\n{text}"
    )


def edits_of(answer: str) -> tuple[Edit, ...]:
    """Understand an answer to `revise_request`; what is no edit is left out.

    Example:
        >>> edits_of('Here: [{"kind": "delete", "sentence": 1}]')
        (Edit(kind='delete', sentence=1, text=''),)
    """
    match = _FENCE.search(answer)
    content = match[1] if match else answer
    start, end = content.find("["), content.rfind("]")
    try:
        values: Any = json.loads(content[start : end + 1]) if 0 <= start < end else []
    except ValueError:
        return ()
    return tuple(edit for value in values if (edit := _edit(value)) is not None)


def _edit(value: Any) -> Edit | None:
    if not isinstance(value, dict) or value.get("kind") not in _KINDS or not isinstance(value.get("sentence"), int):
        return None
    text = value.get("text") or ""
    if not isinstance(text, str) or (value["kind"] != "delete" and not text.strip()):
        return None
    return Edit(value["kind"], value["sentence"], text.strip())


class AskingAgent:
    """Base of the agents that ask a model which sees the image; a subclass sends the requests."""

    measures: bool = False
    at_once: int = 1

    @property
    def allowed(self) -> AllowedClaims:
        """What can be seen."""
        return AllowedClaims(SEEN)

    def describe(self, patch: CaptionedPatch) -> Answer:
        """Ask for a description of the image."""
        return self.ask(describe_request(patch), patch)

    def revise(self, patch: CaptionedPatch, text: str) -> Revision:
        """Ask for edits; an answer that is no list of edits changes nothing."""
        answer = self.ask(revise_request(text), patch)
        return Revision(edits_of(answer.text), answer.usage)

    def ask(self, request: str, patch: CaptionedPatch | None = None) -> Answer:
        """Ask anything, of a patch or of the words of the request alone. Raises as `CaptionAgent.describe`."""
        raise NotImplementedError


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
        answer = self.ask(summarise_request(text, room.most))
        if room.fits(answer.text):
            return answer
        again = self.ask(summarise_request(answer.text, round(room.most * 0.7)))
        return Answer(again.text, answer.usage + again.usage)

    def ask(self, request: str, patch: CaptionedPatch | None = None) -> Answer:
        """Send one request."""
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


@dataclass(frozen=True)
class LocalAgent(AskingAgent):
    """Asks a model that lies in a folder, as the hub lays it out: weights as safetensors, a processor, a tokenizer."""

    folder: Path
    device: str = "cpu"
    most_tokens: int = 200
    name: str = "local"
    at_once: int = 1

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        transformers: Any = import_module("transformers")  # its types take a type checker a minute

        if not (self.folder / "config.json").is_file():
            raise MedclipError(
                Reason.MISSING_FILE,
                "there is no model of transformers here (no config.json).",
                where=self.folder,
                hint="Name the folder that holds a vision-language model as the hub lays it out.",
            )
        try:
            processor = transformers.AutoProcessor.from_pretrained(self.folder, local_files_only=True)
            model: Any = transformers.AutoModelForImageTextToText.from_pretrained(
                self.folder, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, KeyError, ImportError) as e:
            raise MedclipError(
                Reason.PACK_INVALID,
                f"this folder holds no vision-language model that transformers can load ({type(e).__name__}).",
                where=self.folder,
                hint="It needs weights as safetensors, a processor and a tokenizer.",
            ) from e
        return processor, model.to(self.device).eval()

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's files by name and size, and the wording of the requests."""
        files = sorted((p.name, p.stat().st_size) for p in self.folder.iterdir() if p.is_file())
        return {"agent": self.name, "model": digest_of(files), "most_tokens": self.most_tokens, "requests": VERSION}

    def summarise(self, text: str, room: Room) -> Answer:
        """Ask for a caption, of the text alone."""
        return self.ask(summarise_request(text, room.most))

    def ask(self, request: str, patch: CaptionedPatch | None = None) -> Answer:
        """Have the model answer one request."""
        import torch
        from PIL import Image

        processor, model = self._loaded
        started = time.monotonic()
        images = None if patch is None else [Image.fromarray(patch.pixels)]
        try:
            inputs = processor(
                text=[self._prompt(processor, request, patch is not None)], images=images, return_tensors="pt"
            )
            inputs = inputs.to(self.device)
            with torch.inference_mode():
                ids = model.generate(**inputs, max_new_tokens=self.most_tokens, do_sample=False)
        except (ValueError, IndexError, RuntimeError) as e:
            raise AgentRefused(f"the model failed ({type(e).__name__})") from e
        prompt_tokens = int(inputs["input_ids"].shape[1])
        new = ids[0, prompt_tokens:]
        text = processor.batch_decode([new], skip_special_tokens=True)[0]
        return Answer(text, Usage(1, prompt_tokens, len(new), time.monotonic() - started))

    def _prompt(self, processor: Any, request: str, has_image: bool) -> str:
        if getattr(processor, "chat_template", None):
            content: list[dict[str, str]] = [{"type": "image"}] if has_image else []
            message = {"role": "user", "content": [*content, {"type": "text", "text": request}]}
            return processor.apply_chat_template([message], add_generation_prompt=True)
        image = f"{getattr(processor, 'image_token', '<image>')}\n" if has_image else ""
        return f"USER: {image}{request} ASSISTANT:"
