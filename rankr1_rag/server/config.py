"""Every option of the server, declared once."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from rankr1_rag.redaction import check_variable
from rankr1_rag.settings import check_options, check_rules, declare

ADDRESS, LOAD = "Address and keys", "Load and limits"
"""The groups of the server's options, panels of `--help`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ServerConfig:
    """Where the server listens, who may ask it, and how much it takes on at once."""

    host: str = declare("127.0.0.1", "Address to listen on; any but the machine's own needs a key", ADDRESS)
    port: int = declare(8000, "Port to listen on; 0 is a free one", ADDRESS, least=0, most=65_535)
    keys: str | os.PathLike[str] | None = declare(
        None, "File of the keys that clients may send, one a line; read again when it changes", ADDRESS, "none"
    )
    key_env: Sequence[str] = declare(
        (), "Environment variable that holds a key that clients may send; may be repeated", ADDRESS, "none"
    )
    insecure: bool = declare(False, "No key is needed at any address", ADDRESS)
    cors: Sequence[str] = declare(
        (), "Web origin whose pages may ask, https://app.example; may be repeated", ADDRESS, "none"
    )
    model_name: Sequence[str] = declare(
        (),
        "Model name that requests may have, all others are 404; may be repeated",
        ADDRESS,
        "the model's own, and any name with 'rerank' in it",
    )
    max_queries: int | None = declare(
        None, "Maximum number of open queries", LOAD, "what the backend computes at once, else 64", least=1
    )
    max_queue: int = declare(256, "Maximum number of waiting queries; beyond it the answer is 429", LOAD, least=0)
    max_documents: int = declare(10_000, "Maximum number of documents in a request", LOAD, least=1)
    max_bytes: int = declare(16 << 20, "Maximum size of a request in bytes", LOAD, least=1_024)
    max_tokens: int | None = declare(
        None, "Maximum number of tokens in the query and documents of a request", LOAD, "no limit", least=1
    )
    max_deadline: float | None = declare(
        None, "Maximum deadline of a request in seconds, also for requests without one", LOAD, "no limit", above=0
    )
    grace: float = declare(
        20.0, "Seconds after SIGTERM in which open queries may finish; then they get the order so far", LOAD, least=0
    )

    def __post_init__(self) -> None:
        check_options(self)
        for name in self.key_env:
            check_variable("key_env=", name)
        check_rules(
            self,
            [
                (
                    lambda one: not (one.has_keys or one.insecure or is_loopback(one.host)),
                    "host={0.host!r} can be reached from other machines, and there is no key: add keys= or key_env=, "
                    "or insecure= if something else keeps strangers away",
                )
            ],
        )

    @property
    def has_keys(self) -> bool:
        """Whether clients need a key."""
        return self.keys is not None or bool(self.key_env)


def is_loopback(host: str) -> bool:
    """Whether this address or name, with or without a port, is that of the machine itself."""
    name = host.rpartition(":")[0] if host.count(":") == 1 else host
    name = name.partition("]")[0].removeprefix("[").rstrip(".").lower()
    with suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return name == "localhost" or name.endswith(".localhost")
