"""The size of the code, measured: `python -m tests.house` prints it, `budget.json` holds what each part may have."""

import ast
import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUDGET = ROOT / "tests" / "budget.json"
PARTS = {"core": "rankr1_rag", "evaluation": "eval/rankr1_eval", "integrations": "integrations", "tests": "tests"}
CODE = ("rankr1_rag", "eval/rankr1_eval", "integrations")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def nodes(*folders: str) -> Iterator[tuple[Path, ast.AST]]:
    for path in modules(*folders):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            yield path, node


def size(folder: str) -> dict[str, int]:
    """Modules and lines of a part."""
    files = modules(folder)
    return {"modules": len(files), "lines": sum(path.read_text(encoding="utf-8").count("\n") for path in files)}


def shape(*folders: str) -> dict[str, float]:
    """Median module and 90th percentile of functions, in lines; the private share of functions, in percent."""
    functions = [node for _, node in nodes(*folders) if isinstance(node, Function)]
    lengths = sorted((node.end_lineno or node.lineno) - node.lineno + 1 for node in functions)
    private = sum(node.name.startswith("_") and not node.name.startswith("__") for node in functions)
    return {
        "median_module": statistics.median(path.read_text(encoding="utf-8").count("\n") for path in modules(*folders)),
        "function_90th_percentile": lengths[int(0.9 * len(lengths))],
        "private_share": round(100 * private / len(functions), 1),
    }


def homonyms(*folders: str) -> dict[str, list[str]]:
    """Class names that more than one place uses, with the places. Each framework package has its `RankR1Rerank`."""
    places: dict[str, set[str]] = defaultdict(set)
    for path, node in nodes(*folders):
        if isinstance(node, ast.ClassDef) and node.name != "RankR1Rerank":
            places[node.name].add(f"{path.relative_to(ROOT)}:{node.lineno}")
    return {name: sorted(where) for name, where in sorted(places.items()) if len(where) > 1}


def measured() -> dict[str, dict[str, float]]:
    return {**{name: {**size(folder)} for name, folder in PARTS.items()}, "shape": shape(*CODE)}


if __name__ == "__main__":
    budget = json.loads(BUDGET.read_text(encoding="utf-8")) if BUDGET.exists() else {}
    for part, figures in measured().items():
        print(f"{part}: " + ", ".join(f"{k} {v:g} (budget {budget.get(part, {}).get(k)})" for k, v in figures.items()))
