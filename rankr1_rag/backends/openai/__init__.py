"""Any server with OpenAI's chat completions: vLLM, SGLang, llama-server, TGI, hosted ones."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, parse_qsl, urlsplit
from urllib.request import getproxies

from rankr1_rag.backends import Request, on_text
from rankr1_rag.backends.chat_template import behind_think, is_raw, render_with
from rankr1_rag.backends.openai.dialects import (
    DIALECTS,
    Json,
    continued,
    to_body,
    to_completion,
    to_messages,
    to_tokens,
)
from rankr1_rag.backends.openai.refusals import (
    LARGEST,
    Destination,
    Quirks,
    is_error,
    learn,
    parse_json,
    to_error,
    to_text,
)
from rankr1_rag.backends.openai.streaming import FIELDS, StreamedReply
from rankr1_rag.concurrency.event_loop import PerLoop
from rankr1_rag.errors import BackendError, BackendUnavailable
from rankr1_rag.redaction import (
    check_variable,
    excerpt,
    excerpt_of,
    has_secret,
    hide_keys,
    redact,
    remember,
    replace_secrets,
    shown_variable,
    with_digests,
)
from rankr1_rag.types import Completion

if TYPE_CHECKING:
    import httpx

Server = Literal["vllm", "sglang", "llama-server", "tgi"]

OFFICIAL = "https://api.openai.com/v1"
OFFICIAL_HEADERS = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
"""Headers of api.openai.com, with the variables of their values."""
DUMMY_KEY = "none"

TEMPLATE_FIELDS = ("chat_template", "chat_template_kwargs")
"""Fields of a body that change how its messages are rendered."""

HOST = re.compile(r"(?=.{1,253}$)[\w-]{1,63}(\.[\w-]{1,63})*|(?=.*:)[\da-f:.]+(%[A-Za-z][\w.-]*)?")

ROOMS = (0, 2_048, 8_192, 32_768)
"""Tokens added for reasoning that a server does not show: the next number after a completion that was all reasoning."""

HEADERS = ("location", "retry-after", "retry-after-ms")
"""Headers of an answer that are read."""

LOGGERS = ("httpx", *(f"httpcore.{name}" for name in ("connection", "http11", "http2", "proxy", "socks")))
"""Of the libraries below."""

log = logging.getLogger("rankr1_rag.openai")


class OpenAI:
    """Chat completions of `model` at `base_url`: by default OPENAI_BASE_URL, or else api.openai.com.

    `server` names the dialect: without it no message is continued and `Request.choices` are not enforced. `timeout` is
    the limit for one answer in seconds. `extra_body` is added to every body; None removes a field
    (`{"temperature": None}`). `headers` and `query` are added to every request; a value that begins with "$" is read
    from the environment variable of that name, any other is not pickled.

    The key is `api_key`, or the variable named by `api_key_env`, or OPENAI_API_KEY for api.openai.com and
    RANKR1_API_KEY for any other address; a dummy is sent if that is not set and there are no `headers`. An `api_key` is
    not pickled. Nothing from a variable of OpenAI goes to another address.

    A field that the server refuses for this model is left out or renamed from then on, and a warning logged once;
    likewise a system role, and a begun answer. Where a completion is all hidden reasoning, more tokens are allowed.

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
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        extra_body: Mapping[str, object] | None = None,
    ) -> None:
        try:
            import httpx  # noqa: F401  # here: it takes a while
        except ImportError:
            raise ImportError('the OpenAI backend needs httpx: pip install "rankr1-rag[openai]"') from None
        parts = to_parts(base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL)
        self.base_url = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/").removesuffix(
            "/chat/completions"
        )  # query and fragment may be secret
        self._official = (parts.scheme, parts.hostname, parts.port or 443) == ("https", "api.openai.com", 443)
        if server is not None and server not in DIALECTS:
            raise ValueError(
                f"server={server!r} is none of {', '.join(filter(None, DIALECTS))}; None is any other server"
            )
        if api_key_env == "OPENAI_API_KEY" and not self._official:
            raise ValueError(f"OPENAI_API_KEY goes only to api.openai.com: use another variable for {self.base_url}")
        if wrong := [name for name in headers or () if not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII)]:
            name = excerpt_of(wrong[0].partition(":")[0])
            raise ValueError(f"headers= has the name {name}, which no header can have: use one like api-key")
        if partly := [name for name, one in (headers or {}).items() if re.search(r"\s\$\{?[A-Za-z_]\w*\}?$", one)]:
            remedy = 'put the whole value into the variable and use "$NAME", or api_key_env= for a bearer token'
            raise ValueError(f"headers= has a variable behind other text in {partly[0]!r}: {remedy}")
        self.model = model
        self.server = server or ("openai" if self._official else "")
        self.context = context
        self.revision = revision
        self.timeout = timeout
        self._headers = {
            name: Secret(value, "headers=", is_key=has_secret({name: value})) for name, value in (headers or {}).items()
        }
        self._query = dict(parse_qsl(parts.query, keep_blank_values=True)) | dict(query or {})
        if plain := [name for name, one in self._query.items() if has_secret({name: one})]:
            remedy = 'use "$NAME", a variable of the environment, as its value in query='
            raise ValueError(f"the query of {parts.hostname} shows the value of {plain[0]!r}: {remedy}")
        for value in self._query.values():
            Secret(value, "query=", is_key=False)
        self._extra_body: Json = replace_secrets(
            dict(extra_body or {}), lambda one: Secret(one, "extra_body="), references=True
        )
        self._count = count
        self._api_key = None if api_key is None else Secret(api_key, "api_key=")
        if api_key_env:
            check_variable("api_key_env=", api_key_env)
        self._key_name = api_key_env or ("OPENAI_API_KEY" if self._official else "RANKR1_API_KEY")
        self._clients = PerLoop(self._connect)
        self._quirks = Quirks()
        self._rooms: tuple[int, ...] = ROOMS
        self._room = 0
        self._is_unreachable = False
        self.can_continue = DIALECTS[self.server].continues is not None
        where = {"revision": revision} if revision else {"base_url": self.base_url}
        identity = {"model": model, "server": self.server, "extra_body": with_digests(extra_body), **where}
        self.identity = "openai:" + json.dumps({key: value for key, value in identity.items() if value}, sort_keys=True)

    def count(self, text: str) -> int | None:
        """The result of the `count` argument, or None."""
        return None if self._count is None else self._count(text)

    async def complete(self, request: Request) -> Completion:
        """One POST, or more if the server refuses a part of it; cancelling closes its connection.

        Raises `BackendError` and its subclasses.
        """
        destination, room, spent = self._destination(), self._room, list[Completion]()
        while True:
            try:
                spent.append(await self._ask(destination, request, room))
            except BackendError as error:
                if not room or isinstance(error, BackendUnavailable):
                    raise
                self._rooms = tuple(one for one in self._rooms if one < room)  # that was more than the model can write
                self._room = room = min(self._room, self._rooms[-1])
                if spent:
                    break
                continue
            last, more = spent[-1], next((one for one in self._rooms if one > room), None)
            if last.text.strip() or last.finish_reason != "length" or more is None:
                break
            if self.context and last.prompt_tokens + request.max_tokens + more > self.context:
                break
            if more > self._room:
                self._room = more
                log.warning(
                    "%s: %r spent %d tokens on reasoning that the server does not show, and gave no answer. It gets %d "
                    "more from now on: raise reasoning_tokens=, or try extra_body={'reasoning_effort': 'low'}",
                    *(self.base_url, self.model, last.completion_tokens, more),
                )
            room = more
        return replace(
            spent[-1],
            prompt_tokens=sum(one.prompt_tokens for one in spent),
            cached_tokens=sum(one.cached_tokens for one in spent),
            completion_tokens=sum(one.completion_tokens for one in spent),
        )

    async def _ask(self, destination: Destination, request: Request, room: int) -> Completion:
        """The completion with `room` tokens more. What the server refuses is sent another way, now and later."""
        dialect = DIALECTS[self.server]
        raw: str | list[int] = render_with(str, request.messages).text if is_raw(request.messages) else []
        while True:
            quirks, prompt = self._quirks, raw
            if (
                not raw
                and quirks.tokenizes
                and dialect.tokenizes
                and not quirks.continues
                and continued(dialect, request)
            ):
                prompt = await self._prompt(destination, request)
            streamed = {} if prompt or request.logprobs or on_text.get() is None else FIELDS
            body = to_body(dialect, self.model, request, self._quirks, prompt, room, streamed) | self._extra_body
            path = "/completions" if prompt else "/chat/completions"
            status, headers, text = await self._post(destination, self.base_url + path, body)
            data = parse_json(text)
            if 200 <= status < 300 and not is_error(data):
                return self._completion(destination, request, body, data, text)
            error = to_error(destination, status, headers, text)
            learned, change = learn(self._quirks, body, self._extra_body, status, text)
            if learned != self._quirks:
                self._quirks = learned
                log.warning("%s. For %r, from now on %s", str(error)[:200].rstrip("."), self.model, change)
            if self._quirks == quirks:
                raise error

    def _completion(
        self, destination: Destination, request: Request, body: Json, data: object, text: str
    ) -> Completion:
        """The completion in a good answer. BackendError with the beginning of the answer if it is none."""
        problem = "returned an incomplete answer, or no JSON"
        if data is not None:
            try:
                return to_completion(DIALECTS[self.server], request, body, data)
            except ValueError as error:
                problem = f"returned no completion ({error})"
        start = excerpt(text, longest=100) or "nothing"
        if text.lstrip().startswith("<"):
            raise BackendError(f"{self.base_url} is a web page, not an API (does it end in /v1?): {start}")
        raise BackendUnavailable(f"{self.base_url} {problem}: {start}")

    async def _prompt(self, destination: Destination, request: Request) -> list[int]:
        """The tokens of a prompt and its begun answer, by the server's own template. Empty if it does not give them."""
        *turns, last = to_messages(request, self._quirks)
        template = {name: self._extra_body[name] for name in TEMPLATE_FIELDS if name in self._extra_body}

        async def ask(path: str, **fields: object) -> Any:  # noqa: ANN401
            url = self.base_url.removesuffix("/v1") + path
            status, headers, text = await self._post(destination, url, {"model": self.model, **fields})
            if status != 200:
                raise to_error(destination, status, headers, text)
            return parse_json(text)

        try:
            tokens = to_tokens(await ask("/tokenize", messages=turns, add_generation_prompt=True, **template))
            begun, end = last["content"], await ask("/detokenize", tokens=tokens[-8:])
            if str(end["prompt"]).rstrip().endswith("<think>"):  # the template opens the reasoning
                begun = behind_think(begun)
            prompt = tokens + to_tokens(await ask("/tokenize", prompt=begun, add_special_tokens=False))
        except BackendUnavailable:
            raise
        except (BackendError, KeyError, TypeError, ValueError):
            self._quirks = replace(self._quirks, tokenizes=False)
            return []
        return prompt

    async def _post(
        self, destination: Destination, url: str, fields: Mapping[str, object]
    ) -> tuple[int, Mapping[str, str], str]:
        """Status, headers and text of any answer. No exception of httpx is passed on: they hold the key."""
        import httpx

        fields = {name: value for name, value in fields.items() if value is not None}
        # Lone surrogates, which no JSON carries, become "?".
        content = json.dumps(fields, ensure_ascii=False, default=Secret.read).encode("utf-8", "replace")
        answer, listen = bytearray(), on_text.get()
        kind: type[BackendError] = BackendUnavailable
        try:
            async with (
                asyncio.timeout(self.timeout),
                self._clients.get().stream(
                    "POST", url, params=destination.query, headers=destination.headers, content=content
                ) as response,
            ):
                self._is_unreachable = False
                encoding = response.headers.get("content-encoding", "").lower()
                is_stream = response.headers.get("content-type", "").startswith("text/event-stream")
                reply = StreamedReply(listen or (lambda _, __: None)) if is_stream else None
                async for part in response.aiter_raw():
                    answer += part
                    if reply is not None and not encoding:
                        reply.feed(part)
                    if len(answer) > LARGEST:
                        break
            text, broken = to_text(answer, encoding)
            if reply is not None:
                reply.feed(f"{text if encoding else ''}\n".encode())
            text = hide_keys(text) if reply is None else reply.text()
            if not broken or not response.is_success:
                headers = {name: redact(one) for name, one in response.headers.items() if name in HEADERS}
                return response.status_code, headers, text
            broken = f"returned {broken}"
        except TimeoutError:
            broken = f"gave no answer within timeout={self.timeout:g} s"
        except Exception as error:  # of httpx and of the libraries below it, which differ from version to version
            broken = excerpt(str(error)) or type(error).__name__
            broken = f"cannot be reached or broke off: {broken}"
            if not isinstance(error, httpx.HTTPError):
                kind = BackendError  # a wrong proxy, for example
            elif isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)) and not self._is_unreachable:
                self._is_unreachable = True
                log.warning("%s %s. Does the server run at this address?", self.base_url, broken)
        finally:
            content = part = b""  # they may hold a secret, and some tracebacks show all variables
            answer.clear()
        raise kind(f"{self.base_url} {broken}")

    def _destination(self) -> Destination:
        """The address with the present key: environments change, and keys are not kept."""
        headers = {name: secret.read() for name, secret in self._headers.items()}
        query = {name: Secret(value, "query=").read() for name, value in self._query.items()}
        if self._api_key is not None:
            name, key = "the one passed as api_key=", self._api_key.read()
        else:
            name = shown_variable(self._key_name)
            key = Key(os.environ.get(self._key_name, "").strip())
            remember(key)
            name = f"that in {name}" if key or headers or self._official else f"a dummy, as {name} is not set"
        if not key and headers:
            name = f"in headers= ({', '.join(headers)})"
        elif not key and self._official:
            raise BackendError(f"{self.base_url} needs a key: set {shown_variable(self._key_name)}")
        if " " in key or not all(one.isascii() and one.isprintable() for one in (key, *headers.values())):
            raise BackendError(f"the key for {self.base_url} is {name}, which contains a character that no key has")
        sent = {"Content-Type": "application/json", "User-Agent": "rankr1-rag"}
        if (key or not headers) and "authorization" not in map(str.lower, headers):
            sent["Authorization"] = f"Bearer {key or DUMMY_KEY}"
        for header, variable in OFFICIAL_HEADERS.items() if self._official else ():
            sent |= {header: os.environ[variable]} if os.environ.get(variable) else {}
        return Destination(self.base_url, self.model, name, sent | headers, query)

    def _connect(self) -> httpx.AsyncClient:
        """A client for the running loop. Redirects are not followed: they would send the prompt elsewhere."""
        from http.cookiejar import DefaultCookiePolicy

        import httpx

        for proxy in getproxies().values():
            remember(proxy.partition("://")[2].rpartition("@")[0].partition(":")[2])
        for logger in LOGGERS:
            logging.getLogger(logger).addFilter(redact_record)
        client = httpx.AsyncClient(
            headers={"Accept-Encoding": "gzip, deflate"},  # all that `to_text` reads
            timeout=httpx.Timeout(self.timeout, connect=min(self.timeout, 10.0)),
            limits=httpx.Limits(max_connections=1000, max_keepalive_connections=100),
            verify=certificates(),
        )
        client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))  # they would be kept without a limit
        return client

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


class Key(str):
    """A secret text that does not print where variables are printed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<key>"


class Secret:
    """A secret value: it does not print, and is pickled only as the name of its environment variable, "$NAME"."""

    def __init__(self, value: Any, option: str, *, is_key: bool = True) -> None:  # noqa: ANN401
        self._value, self._option, self._is_variable = value, option, str(value).startswith("$")
        if self._is_variable:
            check_variable(f'a value of {option} that begins with "$"', value[1:].removeprefix("{").removesuffix("}"))
        else:
            remember(str(value), key=is_key)

    def read(self) -> Any:  # noqa: ANN401
        """The value. BackendError if its variable is not set."""
        if not self._is_variable:
            return Key(self._value) if isinstance(self._value, str) else self._value
        name = self._value[1:].strip("{}")
        if not (value := Key(os.environ.get(name, "").strip())):
            name = shown_variable(name)
            raise BackendError(f"{self._option} needs the environment variable {name}, which is not set")
        remember(value)
        return value

    def __repr__(self) -> str:
        return "<key>"

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> tuple[type[Secret], tuple[str, str]]:
        if self._is_variable:
            return Secret, (self._value, self._option)
        remedy = (
            "api_key_env=" if self._option == "api_key=" else '"$NAME", a variable of the environment, as the value'
        )
        raise TypeError(f"{self._option} would be pickled with the backend: use {remedy}")


def to_parts(url: str) -> SplitResult:
    """The parts of an address, without blanks around it and doubled slashes. ValueError if no request can go there."""
    import httpx

    url = url.strip()
    problem = "its host or its port is malformed"
    try:
        parts = urlsplit(url)
        is_port, host = parts.port != 0 and not parts.netloc.endswith(":"), parts.hostname or ""
        if parts.scheme not in ("http", "https"):
            problem = "it does not begin with http:// or https://"
        elif re.search(r"\s", url) or not url.isprintable():
            problem = "it contains a blank or a control character"
        elif "@" in parts.netloc:
            problem = f"at {host} it contains a user name or password, use api_key_env= for a key"
        elif is_port and HOST.fullmatch(host):
            httpx.URL(url)
            return parts._replace(path=re.sub("//+", "/", parts.path))
    except (ValueError, httpx.InvalidURL):
        pass
    url = "…" if "@" in url else excerpt(re.split("[?#]", url)[0], strict=True)  # nothing that may be secret
    raise ValueError(f"base_url={url!r} is no address ({problem}): use one like http://localhost:8000/v1")


@cache
def certificates() -> ssl.SSLContext:
    """The certificates of this machine, read once: that takes 50 ms."""
    import httpx

    return httpx.create_ssl_context()


def redact_record(record: logging.LogRecord) -> bool:
    """A filter of the logs of httpx, which print addresses with their query, and the headers of answers."""
    if isinstance(record.args, tuple):
        record.args = tuple(str(one).partition("?")[0] if type(one).__name__ == "URL" else one for one in record.args)
    record.msg, record.args = redact(record.getMessage()), ()
    return True
