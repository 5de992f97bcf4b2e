"""The keys that clients may send: several, from variables of the environment and from a file that may change."""

from __future__ import annotations

import hmac
import logging
import os
import time
from hashlib import sha256
from pathlib import Path

from rankr1_rag.errors import FileError
from rankr1_rag.io.files import numbered_lines
from rankr1_rag.redaction import remember
from rankr1_rag.server.config import ServerConfig

log = logging.getLogger("rankr1_rag.server")

PATIENCE = 1.0
"""Seconds between two looks at the file of keys."""

LEAST = 8
"""Fewest characters of a key."""


class Keys:
    """Only digests are kept and compared, each of them, so that the time says nothing about a key.

    A file that is changed counts at once: its wrong lines are left out with a warning, and without the file none of its
    keys is valid any more.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.path = None if config.keys is None else Path(config.keys)
        self.needed = config.has_keys
        self.own = [digest(os.environ.get(name, ""), f"the variable {name}") for name in config.key_env]
        self.stamp, self.looked = self.look(), time.monotonic()
        self.digests = self.own + self.read(strict=True)

    def find(self, header: str) -> str | None:
        """Who sent this Authorization header: the digest of the key, "" if none is needed, None without a valid one."""
        if not self.needed:
            return ""
        if self.path is not None and time.monotonic() > self.looked + PATIENCE:
            self.looked, stamp = time.monotonic(), self.look()
            if stamp != self.stamp:
                self.stamp, self.digests = stamp, self.own + self.read(strict=False)
                log.warning("%s was read again: %d keys are valid", self.path, len(self.digests))
        scheme, _, key = header.partition(" ")
        sent = sha256(key.strip().encode("utf-8", "surrogatepass")).digest()
        found = [one for one in self.digests if hmac.compare_digest(one, sent)]
        return found[0].hex() if found and scheme.lower() == "bearer" else None

    def look(self) -> object:
        """What changes when the file does; None if it is not there."""
        try:
            stat = os.stat(self.path) if self.path else None
        except OSError:
            return None
        return stat and (stat.st_mtime_ns, stat.st_size, stat.st_ino)

    def read(self, *, strict: bool) -> list[bytes]:
        """The digests of the file; with `strict` a FileError or OSError for what cannot be read."""
        found = list[bytes]()
        try:
            for number, line in numbered_lines(self.path) if self.path else ():
                try:
                    if not line.lstrip().startswith("#"):
                        found.append(digest(line.strip(), "the line"))
                except ValueError as error:
                    wrong = FileError(str(self.path), number, str(error))
                    if strict:
                        raise wrong from None
                    log.warning("%s", str(wrong))
        except (OSError, FileError) as error:
            if strict:
                raise
            log.warning("%s", str(error))
        return found


def digest(key: str, where: str) -> bytes:
    """The digest of a key, which is kept out of all texts from now on. ValueError for what no client can send."""
    if len(key) < LEAST or not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError(f"{where} holds no key: at least {LEAST} ASCII characters without blanks are needed")
    remember(key)
    return sha256(key.encode()).digest()
