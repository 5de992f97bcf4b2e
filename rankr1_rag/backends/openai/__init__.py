"""Any server with OpenAI's chat completions: vLLM, SGLang, llama-server, TGI, hosted ones."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, NoReturn
from urllib.parse import urlsplit

from rankr1_rag.backends import Request
from rankr1_rag.backends.openai.dialects import (
    DIALECTS,
    Destination,
    is_error,
    parse_json,
    redact,
    to_body,
    to_completion,
    to_error,
)
from rankr1_rag.concurrency.event_loop import PerLoop
from rankr1_rag.errors import BackendError, BackendUnavailable
from rankr1_rag.types import Completion

if TYPE_CHECKING:
    import httpx

Server = Literal["vllm", "sglang", "llama-server", "tgi"]

OFFICIAL = "https://api.openai.com/v1"
OFFICIAL_HEADERS = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
"""Headers of api.openai.com, with the variables of their values."""
DUMMY_KEY = "none"


class OpenAI:
    """Chat completions of `model` at `base_url`: by default OPENAI_BASE_URL, or else api.openai.com.

    `server` names the dialect: without it no message is continued and `Request.choices` are not enforced. `timeout` is
    the limit for one answer in seconds. `extra_body` is added to every body; None removes a field
    (`{"temperature": None}`).

    The key is `api_key`, or the variable named by `api_key_env`, or OPENAI_API_KEY for api.openai.com and
    RANKR1_API_KEY for any other address; a dummy is sent if that is not set. An `api_key` is not pickled. Nothing from
    a variable of OpenAI goes to another address.

    `identity` contains the address: two servers may call different models by one name. A `revision` of the weights
    replaces the address: all servers with the same model and revision share their stored completions.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        api_key_env: str | None = None,
        server: Server | None = None,
        context: int | None = None,
        count: Callable[[str], int] | None = None,
        revision: str = "",
        timeout: float = 600.0,
        extra_body: Mapping[str, object] | None = None,
    ) -> None:
        try:
            import httpx  # noqa: F401  # here: it takes a while
        except ImportError:
            raise ImportError('the OpenAI backend needs httpx: pip install "rankr1-rag[openai]"') from None
        url = base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not re.fullmatch(r"[\w.:%-]+", parts.hostname or ""):
            raise ValueError(f"base_url={redact(url, '')!r} is no address: use one like http://localhost:8000/v1")
        if "@" in parts.netloc:
            raise ValueError(
                f"base_url at {parts.hostname} contains a user name or password: use api_key_env= for a key"
            )
        self.base_url = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")  # query and fragment may be secret
        self._query = parts.query
        self._official = (parts.scheme, parts.hostname, parts.port or 443) == ("https", "api.openai.com", 443)
        if server is not None and server not in DIALECTS:
            raise ValueError(
                f"server={server!r} is none of {', '.join(filter(None, DIALECTS))}; None is any other server"
            )
        if api_key_env == "OPENAI_API_KEY" and not self._official:
            raise ValueError(f"OPENAI_API_KEY goes only to api.openai.com: use another variable for {self.base_url}")
        self.model = model
        self.server = server or ("openai" if self._official else "")
        self.context = context
        self.revision = revision
        self.timeout = timeout
        self._extra_body = dict(extra_body or {})
        self._count = count
        self._api_key = None if api_key is None else Secret(api_key)
        self._key_name = api_key_env or ("OPENAI_API_KEY" if self._official else "RANKR1_API_KEY")
        self._clients = PerLoop(self._connect)
        self.can_continue = DIALECTS[self.server].continues is not None
        where = {"revision": revision} if revision else {"base_url": self.base_url}
        parts = {"model": model, "server": self.server, "extra_body": self._extra_body, **where}
        self.identity = "openai:" + json.dumps({key: value for key, value in parts.items() if value}, sort_keys=True)

    def count(self, text: str) -> int | None:
        """The result of the `count` argument, or None."""
        return None if self._count is None else self._count(text)

    async def complete(self, request: Request) -> Completion:
        """One POST; cancelling closes its connection. Raises `BackendError` and its subclasses."""
        destination = self._destination()
        fields = to_body(DIALECTS[self.server], self.model, request) | self._extra_body
        status, headers, text = await self._post(destination, "/chat/completions", fields)
        data = parse_json(text)
        if not 200 <= status < 300 or is_error(data):
            raise to_error(destination, status, headers, text)
        if data is None:
            start = redact(text, destination.key, longest=100)
            if text.lstrip().startswith("<"):
                raise BackendError(f"{self.base_url} is a web page, not an API (does it end in /v1?): {start}")
            raise BackendUnavailable(f"{self.base_url} returned an incomplete answer, or no JSON: {start}")
        try:
            return to_completion(DIALECTS[self.server], request, data)
        except ValueError as error:
            raise BackendUnavailable(f"{self.base_url}: {error}") from None

    async def _post(
        self, destination: Destination, path: str, fields: Mapping[str, object]
    ) -> tuple[int, Mapping[str, str], str]:
        """Status, headers and text of any answer. No exception of httpx is passed on: they hold the key."""
        import httpx

        key, broken = destination.key or DUMMY_KEY, ""
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "User-Agent": "rankr1-rag"}
        for name, variable in OFFICIAL_HEADERS.items() if self._official else ():
            headers |= {name: os.environ[variable]} if os.environ.get(variable) else {}
        body = json.dumps({name: value for name, value in fields.items() if value is not None}, ensure_ascii=False)
        try:
            async with asyncio.timeout(self.timeout):
                response = await self._clients.get().post(
                    f"{self.base_url}{path}",
                    params=self._query or None,
                    headers=headers,
                    content=body.encode("utf-8", "replace"),  # lone surrogates, which no JSON carries, become "?"
                )
            return response.status_code, response.headers, response.text
        except TimeoutError:
            broken = f"gave no answer within timeout={self.timeout:g} s"
        except httpx.HTTPError as error:
            broken = f"cannot be reached or broke off: {redact(str(error), key) or type(error).__name__}"
        raise BackendUnavailable(f"{self.base_url} {broken}")

    def _destination(self) -> Destination:
        """The address with the present key: environments change, and keys are not kept."""
        if self._api_key is not None:
            name, key = "the one passed as api_key=", self._api_key.value
        else:
            name, key = f"that in {self._key_name}", os.environ.get(self._key_name, "").strip()
        if not key and self._official:
            raise BackendError(f"{self.base_url} needs a key: set {self._key_name}")
        if not key:
            name = f"a dummy, as {self._key_name} is not set"
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise BackendError(f"the key for {self.base_url} is {name}, which contains a character that no key has")
        return Destination(self.base_url, self.model, name, key)

    def _connect(self) -> httpx.AsyncClient:
        """A client for the running loop. Redirects are not followed: they would send the prompt elsewhere."""
        import httpx

        return httpx.AsyncClient(
            timeout=httpx.Timeout(self.timeout, connect=min(self.timeout, 10.0)),
            limits=httpx.Limits(max_connections=1000, max_keepalive_connections=100),
        )

    async def close(self) -> None:
        """Close the connections of every running loop; those of a closed loop are closed."""
        here = asyncio.get_running_loop()
        for loop, client in self._clients.take():
            if loop is here:
                await client.aclose()
            elif loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(client.aclose(), loop))

    def __repr__(self) -> str:
        return f"OpenAI({self.model!r}, base_url={self.base_url!r}, server={self.server or None!r})"


class Secret:
    """A key that does not print and does not pickle."""

    def __init__(self, value: str) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "<key>"

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("api_key= would be pickled with the backend: use api_key_env=")
