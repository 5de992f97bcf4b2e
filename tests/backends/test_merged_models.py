"""Merged models are kept: made once, whole, by one process, and never in the way where they cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType

from rankr1_rag.backends.openvino import merged_models
from rankr1_rag.backends.openvino.merged_models import KEPT, merged
from rankr1_rag.errors import BackendError
from rankr1_rag.io.files import LOCKS, locked
from tests.backends.small_model import make_adapter, make_model, tensors

pytestmark = pytest.mark.third_party


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_model(tmp_path / "base.gguf", GGMLQuantizationType.Q4_1)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "lora")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return merged_models.folder()


def ready(base: Path, adapter: Path) -> tuple[Path, int]:
    """The file, and which one on the disk it is."""
    with merged(base, adapter) as (path, notice):
        assert notice is None
        return path, path.stat().st_ino


def test_it_is_made_at_the_first_use_and_found_at_the_next(base: Path, adapter: Path, cache: Path) -> None:
    first = ready(base, adapter)
    assert ready(base, adapter) == first
    assert first[0].parent == cache
    assert list(cache.iterdir()) == [first[0]]
    assert tensors(first[0])["blk.0.ffn_up.weight"][0] == "F16"


def test_another_base_or_another_adapter_is_another_file(base: Path, adapter: Path, cache: Path) -> None:
    other = make_model(base.with_name("other.gguf"), GGMLQuantizationType.Q8_0)
    paths = {ready(base, adapter), ready(other, adapter), ready(base, make_adapter(adapter, ["mlp.up_proj"]))}
    assert len({path for path, _ in paths}) == 3


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    return content[:-99] + bytes([content[-99] ^ 1]) + content[-98:]


@pytest.mark.parametrize("damage", [cut, flipped, lambda content: b""], ids=["cut", "flipped", "empty"])
def test_a_damaged_file_is_made_anew(base: Path, adapter: Path, cache: Path, damage: Callable[[bytes], bytes]) -> None:
    path, _ = ready(base, adapter)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    again, _ = ready(base, adapter)
    assert again.read_bytes() == whole
    assert list(cache.iterdir()) == [again]


def test_of_processes_at_once_one_makes_it_and_all_have_it(base: Path, adapter: Path, cache: Path) -> None:
    code = "import sys; from pathlib import Path; from rankr1_rag.backends.openvino.merged_models import merged\n"
    code += "with merged(*map(Path, sys.argv[1:])) as (path, notice): print(path, path.stat().st_ino, notice)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code, str(base), str(adapter)]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = {process.communicate(timeout=60)[0] for process in running}
    assert said == {f"{ready(base, adapter)[0]} {ready(base, adapter)[1]} None\n"}
    assert len(list(cache.iterdir())) == 1


@pytest.mark.skipif(not LOCKS, reason="this system has no locks")
def test_who_finds_another_at_work_waits_for_it(
    base: Path, adapter: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = ready(base, adapter)
    path.unlink()
    lock = locked(cache / f"{path.name.split('.')[0]}.lock")
    waiting = threading.Thread(target=ready, args=(base, adapter))
    waiting.start()
    time.sleep(0.3)
    assert not path.exists()
    lock.close()
    waiting.join(30)
    assert path.exists()


@pytest.mark.skipif(not LOCKS, reason="this system has no locks")
def test_but_not_for_ever(base: Path, adapter: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merged_models, "PATIENCE", 0.1)
    path, _ = ready(base, adapter)
    path.unlink()
    with (
        locked(cache / f"{path.name.split('.')[0]}.lock"),
        merged(base, adapter) as (instead, notice),
    ):
        assert instead.exists()
        assert "another process has had it for" in str(notice)


def test_where_nothing_can_be_kept_it_is_made_for_once_and_that_is_told(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with merged(base, adapter) as (path, notice):
        assert "blk.0.ffn_up.weight" in tensors(path)
        assert f"'{tmp_path / 'file'}" in str(notice)
        assert "made anew each time" in str(notice)
        assert "XDG_CACHE_HOME" in str(notice)
    assert not path.parent.exists()


def test_where_nothing_can_be_written_at_all_both_folders_are_named(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(BackendError, match=r"neither the cache folder \(.*file.*\) nor the temporary one \(.*none"):
        ready(base, adapter)


def test_an_adapter_that_does_not_fit_leaves_nothing_behind(base: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="for a model of 2 blocks"):
        ready(base, make_adapter(tmp_path / "other", blocks=2))
    assert list(cache.iterdir()) == []


def test_those_used_last_stay_and_what_was_left_half_made_goes(base: Path, cache: Path, tmp_path: Path) -> None:
    adapters = [make_adapter(tmp_path / str(scale), lora_alpha=scale) for scale in range(1, KEPT + 2)]
    made = [ready(base, adapter)[0] for adapter in adapters[:-1]]
    for age, path in enumerate(made, start=1):
        os.utime(path, (age, age))
    left, others = cache / "killed.part", cache / "at-work.part"
    left.touch()
    others.touch()
    os.utime(left, (1, 1))
    ready(base, adapters[0])  # the oldest is used again
    last, _ = ready(base, adapters[-1])
    assert sorted(cache.iterdir()) == sorted([made[0], *made[2:], last, others])
