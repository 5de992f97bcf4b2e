"""The code stays small and its words plain: a budget of sizes, one class a name, no banned words."""

import ast
import json
import re

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
PROSE = ("*.md", "docs/*.md", "eval/*.md", "bench/*.md", "integrations/*/README.md")


def test_no_part_grows_unless_the_budget_says_so() -> None:
    budget = json.loads(house.BUDGET.read_text(encoding="utf-8"))
    grown = [
        f"{part}: {name} is {value:g}, the budget in tests/budget.json is {budget[part][name]:g}"
        for part, figures in house.measured().items()
        for name, value in figures.items()
        if value > budget[part][name]
    ]
    assert not grown, f"remove code, or enter the growth in tests/budget.json with its reason in the commit: {grown}"


def test_no_class_name_means_two_things() -> None:
    assert not house.homonyms(*house.CODE)


def test_no_string_of_the_code_and_no_page_holds_a_banned_word() -> None:
    strings = [
        (path, node.lineno, node.value)
        for path, node in house.nodes(*house.CODE)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    pages = sorted(page for pattern in PROSE for page in house.ROOT.glob(pattern))
    lines = [(page, *line) for page in pages for line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)]
    found = [
        f"{path.relative_to(house.ROOT)}:{number}: {match[0]!r}"
        for path, number, text in strings + lines
        for match in BAN.finditer(text)
    ]
    assert len(pages) > 20
    assert not found, f"write it by another word ({', '.join(BANNED)}): " + "\n".join(found)
