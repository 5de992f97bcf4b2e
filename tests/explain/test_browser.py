"""The page in a real browser, where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rankr1_rag.explain import write_page
from rankr1_rag.types import Ranking

CHROMIUM = shutil.which("chromium")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
    "--dump-dom",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on PATH"),
]


def opened(ranking: Ranking, folder: Path) -> tuple[str, list[str]]:
    """The DOM that the browser made of the page, and what it wrote to its console."""
    target = folder / "page.html"
    write_page(ranking, target)
    command = [str(CHROMIUM), *QUIET, f"--user-data-dir={folder / 'profile'}", target.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, re.findall(r".*CONSOLE.*", done.stderr)


def test_the_browser_has_nothing_to_complain_about(ordinary: Ranking, tmp_path: Path) -> None:
    dom, console = opened(ordinary, tmp_path)
    assert console == []
    assert dom.count("data-position=") == len(ordinary)


def test_the_browser_makes_nothing_of_hostile_text(hostile: Ranking, tmp_path: Path) -> None:
    dom, console = opened(hostile, tmp_path)
    assert console == []
    assert not re.search(r"<(script|img|!--)", dom)
    assert not re.search(r"<[^>]*\son\w+=", re.sub(r'"[^"]*"', '""', dom))


def test_a_page_that_breaks_its_own_policy_would_be_noticed(ordinary: Ranking, tmp_path: Path) -> None:
    target = tmp_path / "broken.html"
    write_page(ordinary, target)
    target.write_text(target.read_text("utf-8").replace("<style>", "<style> ", 1), "utf-8")
    command = [str(CHROMIUM), *QUIET, f"--user-data-dir={tmp_path / 'profile'}", target.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "Content Security Policy" in done.stderr
