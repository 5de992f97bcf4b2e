"""The report in a real browser, where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rankr1_eval.report import write_report
from rankr1_eval.scoring import score
from tests.eval import made_run

CHROMIUM = shutil.which("chromium")
QUIET = """
--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --enable-logging=stderr --v=0 --dump-dom
"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on PATH")]


def opened(target: Path) -> tuple[str, list[str]]:
    """The DOM that the browser made of the page, and what it wrote to its console."""
    command = [str(CHROMIUM), *QUIET.split(), f"--user-data-dir={target.parent / 'profile'}", target.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, re.findall(r".*CONSOLE.*", done.stderr)


def test_the_browser_has_nothing_to_complain_about(shared_data: Path, tmp_path: Path) -> None:
    run = made_run.of(made_run.real_questions(shared_data, 20))
    write_report(run, score(run), tmp_path)
    dom, console = opened(tmp_path / "report.html")
    assert console == []
    assert dom.count("<h2") >= 6


def test_the_browser_makes_nothing_of_hostile_text(shared_data: Path, tmp_path: Path) -> None:
    run = made_run.hostile(made_run.of(made_run.real_questions(shared_data, 4)))
    write_report(run, score(run), tmp_path)
    dom, console = opened(tmp_path / "report.html")
    assert console == []
    assert not re.search(r"<(script|img|!--)", dom)
    assert not re.search(r"<[^>]*\son\w+=", re.sub(r'"[^"]*"', '""', dom))


def test_a_page_that_breaks_its_own_policy_would_be_noticed(shared_data: Path, tmp_path: Path) -> None:
    run = made_run.of(made_run.real_questions(shared_data, 2))
    write_report(run, score(run), tmp_path)
    target = tmp_path / "report.html"
    target.write_text(target.read_text("utf-8").replace("<style>", "<style> ", 1), "utf-8")
    assert opened(target)[1] != []
