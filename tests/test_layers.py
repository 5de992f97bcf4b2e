"""Imports only point down: each package may import only what is below it."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LAYERS = [
    {"redaction"},
    {"errors", "scoring", "selection"},
    {"types"},
    {"concurrency"},
    {"io"},
    {"backends", "prompt"},
    {"checkpoints", "explain", "reader"},
    {"settings", "telemetry"},
    {"engine"},
    {"reranker", "train"},
    {"connect", "demo"},
    {"cross_encoder", "frameworks", "server"},
    {"cli"},
    {"__main__"},
]
OPTIONAL = [
    *("llama_index", "langchain", "langchain_classic", "langchain_core", "langchain_rankr1", "rankr1_eval"),
    *("accelerate", "datasets", "matplotlib", "peft", "sentence_transformers", "torch", "transformers", "trl", "vllm"),
]
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}
FRAMEWORKS = ("langchain", "langchain_core", "llama_index", "pydantic", "rankr1_eval", "sentence_transformers")


def imports(path: Path) -> set[str]:
    """The full names of all modules and of what is taken from them, wherever in the file they are imported."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def part(path: Path, package: str) -> str:
    return path.relative_to(ROOT / package).parts[0].removesuffix(".py")


def test_imports_of_the_core_point_down() -> None:
    wrong = []
    for path in sorted((ROOT / "rankr1_rag").rglob("*.py")):
        name = part(path, "rankr1_rag")
        if name == "__init__":
            continue
        assert name in HEIGHT, f"{name} is in no layer: add it to LAYERS"
        for other in {one.split(".")[1] for one in imports(path) if one.startswith("rankr1_rag.")} & HEIGHT.keys():
            if other != name and HEIGHT[other] >= HEIGHT[name]:
                wrong.append(f"{path.relative_to(ROOT)} imports {other}")
    assert not wrong


def test_the_core_knows_no_framework_and_no_evaluation() -> None:
    for path in (ROOT / "rankr1_rag").rglob("*.py"):
        known = {one for one in imports(path) if one.split(".")[0] in FRAMEWORKS}
        if part(path, "rankr1_rag") in ("frameworks", "server"):
            known = {one for one in known if not one.startswith("pydantic")}
        assert not known, f"{path.relative_to(ROOT)} imports {known}"


def test_only_the_command_line_of_the_evaluation_knows_command_lines() -> None:
    for path in (ROOT / "eval" / "rankr1_eval").rglob("*.py"):
        known = {one for one in imports(path) if one.startswith(("rankr1_eval.cli", "rankr1_rag.cli", "typer"))}
        assert part(path, "eval/rankr1_eval") in ("cli", "__main__") or not known, f"{path} imports {known}"


def test_help_of_the_evaluation_loads_nothing_heavy() -> None:
    code = (
        "import sys; from rankr1_eval.cli.app import app; "
        "heavy = {'numpy', 'scipy', 'matplotlib', 'torch', 'datasets', 'bm25s', 'ir_measures'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60, cwd=ROOT / "eval")


def test_no_module_needs_a_framework_or_torch() -> None:
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "rankr1_rag").rglob("*.py")]
    modules.remove("rankr1_rag.__main__")  # the command line runs at import
    code = f"""
import importlib, sys
sys.modules |= dict.fromkeys({OPTIONAL})  # importing them fails
for name in {sorted(modules)}:
    importlib.import_module(name.removesuffix(".__init__"))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
