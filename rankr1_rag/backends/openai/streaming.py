"""Server-sent events of a completion: its text as it comes, then the reply that a server would have sent at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rankr1_rag.backends.openai.dialects import as_text, reasoning_and_content
from rankr1_rag.backends.openai.refusals import parse_json
from rankr1_rag.redaction import hide_keys, possible_key

FIELDS = {"stream": True, "stream_options": {"include_usage": True}}
"""Of the body of a request whose answer is to be streamed."""


class StreamedReply:
    """Reads the bytes of an answer as they come; `listen` is called with each piece of the text and where it begins."""

    def __init__(self, listen: Callable[[int, str], object]) -> None:
        self._listen, self._length, self._held = listen, 0, ""
        self._rest = bytearray()
        self._reply: dict[str, Any] = {}
        self._choice: dict[str, Any] = {"message": {"role": "assistant", "content": None}}
        self._is_done = self._in_reasoning = False

    def feed(self, part: bytes) -> None:
        """Read a part; its last line may go on in the next."""
        self._rest += part
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._read(line[5:].strip().decode("utf-8", "replace"))

    def _read(self, data: str) -> None:
        event = parse_json(data)
        if not isinstance(event, dict):
            self._is_done = self._is_done or data == "[DONE]"
            return
        if "error" in event:
            self._reply["error"] = event["error"]
        if isinstance(event.get("usage"), dict):
            self._reply["usage"] = event["usage"]
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return
        if choice.get("finish_reason") is not None:
            self._choice["finish_reason"], self._is_done = choice["finish_reason"], True
        delta, message = choice.get("delta"), self._choice["message"]
        said = reasoning_and_content(delta if isinstance(delta, dict) else {})
        for name, value in zip(("reasoning", "content"), said, strict=True):
            if not (text := value if isinstance(value, str) else as_text(value)):
                continue
            message[name] = (message.get(name) or "") + text
            if name == "reasoning" and not self._length and not self._held:
                text, self._in_reasoning = f"<think>{text}", True
            elif name == "content" and self._in_reasoning:
                text, self._in_reasoning = f"</think>{text}", False
            self._held = hide_keys(self._held + text)
            self._pass_on(len(self._held) - possible_key(self._held))

    def _pass_on(self, n: int) -> None:
        """Pass on the first n characters of the text that is held back, as a key may begin in the others."""
        if n:
            self._listen(self._length, self._held[:n])
            self._length, self._held = self._length + n, self._held[n:]

    def text(self) -> str:
        """The reply in one piece, as JSON; "" if the server broke off."""
        self._pass_on(len(self._held))
        if self._is_done:
            self._reply["choices"] = [self._choice]
        return hide_keys(json.dumps(self._reply)) if self._reply else ""
