"""Imports only point down: each module may import only what stands below it."""

import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "rankr1_rag"

LAYERS = [
    {"errors", "evidence"},
    {"types"},
    {"files", "fusion", "inputs", "locked", "notice", "selection", "prompt", "loop"},
    {"collection", "backends", "trec", "many"},
    {"budget", "comparing", "retrieving"},
    {"engine"},
    {"checkpoints"},
    {"plan"},
    {"stages"},
    {"reranker"},
    {"jsonlines_trace"},
    {"jsonlines", "explain", "demo", "connect"},
    {"component_candidates", "component_settings", "cross_encoder", "train"},
    {"component"},
    {"cli"},
    {"__main__"},
]
OPTIONAL = [
    *("llama_index", "langchain", "langchain_classic", "langchain_core", "langchain_rankr1", "rankr1_eval"),
    *("accelerate", "datasets", "matplotlib", "peft", "sentence_transformers", "torch", "transformers", "trl", "vllm"),
]
NOT_IMPORTED = {"rankr1_rag.__main__", "rankr1_rag.train.shared_prompts"}
"""The command line runs at import; shared_prompts derives a class from one of torch."""
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}
APART = [{"selection", "prompt"}, {"selection", "backends"}, {"prompt", "backends"}]


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("rankr1_rag.") and name.split(".")[1] in HEIGHT}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_point_down(path: Path) -> None:
    name = part(path)
    if name == "__init__":
        return
    assert name in HEIGHT, f"{name} stands in no layer: add it"
    for other in imported(path) - {name}:
        assert HEIGHT[other] < HEIGHT[name], f"{name} imports {other}"


def test_the_three_worlds_meet_only_in_the_engine() -> None:
    for path in PACKAGE.rglob("*.py"):
        for pair in APART:
            if part(path) in pair:
                assert not imported(path) & (pair - {part(path)}), path


def test_no_module_needs_a_framework_or_torch() -> None:
    modules = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.rglob("*.py")]
    code = f"""
import importlib, sys
for name in {OPTIONAL}:
    sys.modules[name] = None  # importing it fails
for name in {sorted(set(modules) - NOT_IMPORTED)}:
    importlib.import_module(name.removesuffix(".__init__"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank ones, comments or docstrings."""
    text = path.read_text(encoding="utf-8")
    told: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            told |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    empty = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in empty:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - told)


INTEGRATIONS = PACKAGE.parent / "integrations"


@pytest.mark.parametrize(
    "package", ["llama-index-postprocessor-rankr1/llama_index", "langchain-rankr1/langchain_rankr1"]
)
def test_an_integration_translates_and_decides_nothing_in_less_than_a_hundred_lines(package: str) -> None:
    files = sorted((INTEGRATIONS / package).rglob("*.py"))
    assert len(files) == 3
    assert 0 < sum(map(code_lines, files)) < 100
