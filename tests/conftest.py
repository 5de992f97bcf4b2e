"""What several tests share: where the real data lies."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


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
