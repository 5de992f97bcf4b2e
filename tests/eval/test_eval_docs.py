"""What the pages of the evaluation show exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = ["README.md", "docs/evaluation.md", "docs/reproduction.md", "eval/README.md"]


def shown() -> list[tuple[str, str]]:
    """Each command with its arguments, as printed on some page."""
    lines = []
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL):
            lines += re.findall(r"^ *rankr1-eval (\w+) (.*)", block.replace("\\\n", " "), re.MULTILINE)
    return sorted(set(lines))


def test_every_command_is_shown_somewhere() -> None:
    assert {name for name, _ in shown()} == {"qa", "compare", "score", "ir", "selection", "reproduce"}


@pytest.mark.parametrize("name", sorted({name for name, _ in shown()}))
def test_every_option_that_is_shown_exists(name: str) -> None:
    asked = [sys.executable, "-W", "error", "-m", "rankr1_eval", name, "--help"]
    found = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout
    for command, arguments in shown():
        if command == name:
            for option in re.findall(r"--[a-z-]+", arguments):
                assert option in found, f"rankr1-eval {command} {arguments}"
