"""The code stays small and its words plain: a budget of sizes, one class a name, no banned words."""

import ast
import json
import re
from pathlib import Path

import pytest

from tests import house

BANNED = {
    "told / tells": r"\b(?:told|tells)\b",
    "stands": r"\bstands\b",
    "beside": r"\bbeside\b",
    "anew": r"\banew\b",
    "so many / so often": r"\bso (?:many|often)\b",
    "lent / borrowed": r"\b(?:lent|borrowed)\b",
    "mended": r"\bmend(?:ed|s)?\b",
    "near thing": r"\bnear thing\b",
    "held up": r"\bheld up\b",
    "what it says": r"\bwhat it says\b",
    "go on with": r"\b(?:go|goes|gone|going) on with\b",
    "is had": r"\b(?:is|are|be|was) had\b",
}
BAN = re.compile("|".join(f"(?:{pattern})" for pattern in BANNED.values()), re.IGNORECASE)
PROSE = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "eval/*.md",
    "integrations/*/README.md",
    "bench/*.md",
]


def test_no_part_grows_unless_the_budget_says_so() -> None:
    budget = json.loads(house.BUDGET.read_text(encoding="utf-8"))
    grown = [
        f"{part}: {name} is {value:g}, the budget in tests/budget.json is {budget[part][name]:g}"
        for part, figures in house.measured().items()
        for name, value in figures.items()
        if value > budget[part][name]
    ]
    assert not grown, "remove code, or enter the growth in tests/budget.json with its reason in the commit: " + str(
        grown
    )


def test_no_class_name_means_two_things() -> None:
    assert not house.homonyms(*house.CODE)


def texts(path: Path) -> list[tuple[int, str]]:
    """The strings of a module with their lines: docstrings, help texts, errors."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [(n.lineno, n.value) for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def test_no_string_of_the_code_holds_a_banned_word() -> None:
    found = [
        f"{path.relative_to(house.ROOT)}:{line}: {match[0]!r}"
        for path in house.modules(*house.CODE)
        for line, text in texts(path)
        for match in BAN.finditer(text)
    ]
    assert not found, f"write it by another word ({', '.join(BANNED)}): " + "\n".join(found)


@pytest.mark.parametrize("pattern", PROSE)
def test_no_page_holds_a_banned_word(pattern: str) -> None:
    pages = sorted(house.ROOT.glob(pattern))
    assert pages
    found = [
        f"{page.relative_to(house.ROOT)}:{number}: {match[0]!r}"
        for page in pages
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        for match in BAN.finditer(line)
    ]
    assert not found, "\n".join(found)
