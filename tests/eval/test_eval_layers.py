"""Imports of the evaluation only point down: its command line on top, the core below, and what is heavy late."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "eval" / "rankr1_eval"


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(str(node.module))
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_line_knows_the_command_line(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0]
    known = {name for name in imported(path) if name.startswith(("rankr1_eval.cli", "rankr1_rag.cli", "typer"))}
    assert part in ("cli", "__main__.py") or not known, known


def test_the_core_does_not_know_the_evaluation() -> None:
    for path in (ROOT / "rankr1_rag").rglob("*.py"):
        assert not any(name.startswith("rankr1_eval") for name in imported(path)), path


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from rankr1_eval.cli.app import app; "
        "heavy = {'numpy', 'scipy', 'matplotlib', 'torch', 'datasets', 'bm25s', 'ir_measures'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
