"""What tests of pages share: a parser that is strict, the check of the content security policy, a real browser."""

import base64
import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")
OPTIONS = """
--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --enable-logging=stderr --v=0 --dump-dom
"""


def needs_chromium(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test as slow, and skips it without the browser."""
    return pytest.mark.slow(pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on PATH")(test))


class ParsedPage(HTMLParser):
    """What a browser would see: tags, attributes, text; a tag left open or closed twice is an error."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = self.style = ""
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text += data

    def values(self, name: str) -> list[str]:
        return [value or "" for key, value in self.attributes if key == name]


def check_policy(source: str) -> None:
    """The policy allows the one style sheet by its hash and nothing else."""
    seen = ParsedPage(source)
    policy = next(value for value in seen.values("content") if value.startswith("default-src"))
    digest = base64.b64encode(hashlib.sha256(seen.style.encode()).digest()).decode()
    allowed = ["default-src 'none'", f"style-src 'sha256-{digest}'", "img-src data:", "base-uri 'none'"]
    assert policy.split("; ") == [*allowed, "form-action 'none'"]
    assert not re.search(r"url\(|@import", seen.style)


def opened(page: Path) -> tuple[str, list[str]]:
    """The DOM that the browser made of a page, and its console."""
    command = [str(CHROMIUM), *OPTIONS.split(), f"--user-data-dir={page.parent / 'profile'}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, re.findall(r".*CONSOLE.*", done.stderr)


def check_in_browser(ordinary: Path, hostile: Path) -> str:
    """No complaint about either page, no element from a stranger, and a broken policy would be noticed.

    Returns the DOM of the ordinary page.
    """
    (dom, console), (strange, other) = opened(ordinary), opened(hostile)
    assert console == other == []
    assert not re.search(r"<(script|img|!--)", strange)
    assert not re.search(r"<[^>]*\son\w+=", re.sub(r'"[^"]*"', '""', strange))
    broken = ordinary.with_name("broken.html")
    broken.write_text(ordinary.read_text("utf-8").replace("<style>", "<style> ", 1), "utf-8")
    assert "Content Security Policy" in "".join(opened(broken)[1])
    return dom
