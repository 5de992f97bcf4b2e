"""What several tests share: where the real data lies, and a model that always knows best."""

import os
import random
import re
import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

from rankr1_rag import Passage, redaction
from rankr1_rag.backends.scripted import Scripted

ROOT = Path(__file__).parent.parent

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A shell ignores Ctrl-C for `make test &`, and child processes inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

collect_ignore = [] if find_spec("llama_index") and find_spec("langchain_core") else ["integrations"]
collect_ignore += [] if find_spec("rankr1_eval") else ["eval"]
"""What the environment does not hold: `.venv-vllm` has neither the frameworks nor the evaluation."""


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests() -> None:
    """Each test begins without a known secret."""
    redaction.forget()


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file with this content (and name), and returns its path."""

    def write(content: bytes | str, name: str = "file") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Samples of real data sets, in the official formats; RANKR1_SHARED_DATA says where."""
    path = Path(os.environ.get("RANKR1_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}: set RANKR1_SHARED_DATA")
    return path


@pytest.fixture(scope="session")
def shared_prompts(shared_data: Path) -> Path:
    """The published prompt formats and rendered examples of them."""
    path = shared_data.parent / "prompts"
    if not path.is_dir():
        pytest.skip(f"no published prompts at {path}")
    return path


def _best_label(messages: list[dict[str, str]]) -> str:
    """A perfect judge as a model: passages end in their true rank, the lowest is best."""
    shown = re.findall(r"^\[(\d+)\] .*?(\d+)$", messages[1]["content"], re.MULTILINE)
    label, rank = min(shown, key=lambda pair: int(pair[1]))
    return f"<think>{rank} is the lowest</think> <answer>[{label}]</answer>"


@pytest.fixture
def best_label() -> Callable[[list[dict[str, str]]], str]:
    """What a perfect model says to these messages: the passage with the lowest number at its end."""
    return _best_label


@pytest.fixture
def judge() -> Scripted:
    """A backend that names the passage with the lowest number at its end."""
    return Scripted(_best_label)


@pytest.fixture
def numbered() -> Callable[[int], list[Passage]]:
    """N passages in an order of their own, each ending in its true rank."""

    def make(n: int, seed: int = 0) -> list[Passage]:
        ranks = random.Random(seed).sample(range(n), n)
        return [Passage(f"p{rank}", f"number {rank}") for rank in ranks]

    return make
