"""Adapters merged into GGUF files: the sums, what is refused, and the files that are kept."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from rankr1_rag.backends.openvino import lora, weights
from rankr1_rag.errors import BackendError
from rankr1_rag.io.files import LOCKS, locked
from tests.backends import small_model
from tests.backends.small_model import BLOCKS, HEADS, KV_HEADS, TENSORS, make_adapter, make_model

pytestmark = pytest.mark.third_party

F16, Q4_1, Q8_0 = GGMLQuantizationType.F16, GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q8_0
Array = NDArray[Any]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("base") / "base.gguf", Q4_1)


def merged(base: Path, adapter: Path, kind: int | None = None) -> Path:
    path = adapter / "merged.gguf"
    with path.open("wb") as out:
        lora.merge(base, lora.read_adapter(adapter), out, kind)
    return path


def difference(base: Path, adapter: Path) -> dict[str, Array]:
    """What became of every tensor that is not what it was."""
    before, after = small_model.tensors(base), small_model.tensors(merged(base, adapter))
    assert list(before) == list(after)
    return {name: after[name][1] - before[name][1] for name in before if (after[name][1] != before[name][1]).any()}


def product(adapter: Path, block: int, module: str, scale: float = 2.0) -> Array:
    """B · A · scale by numpy's own words, in float64."""
    from safetensors.numpy import load_file

    begin = f"base_model.model.model.layers.{block}.{module}"
    found = load_file(adapter / "adapter_model.safetensors")
    return scale * (found[f"{begin}.lora_B.weight"].astype(float) @ found[f"{begin}.lora_A.weight"].astype(float))


def in_file_order(rows: Array, heads: int) -> Array:
    """The rows of a head as llama.cpp has them, one by one: those that are rotated together stand side by side."""
    size = len(rows) // heads
    order = [
        head * size + half * size // 2 + pair for head in range(heads) for pair in range(size // 2) for half in (0, 1)
    ]
    return rows[order]


@pytest.mark.parametrize("module", TENSORS)
def test_the_tensors_of_one_module_change_by_b_times_a_and_no_other_does(
    base: Path, tmp_path: Path, module: str
) -> None:
    adapter = make_adapter(tmp_path, [module])
    changed = difference(base, adapter)
    assert sorted(changed) == sorted(f"blk.{block}.{TENSORS[module]}.weight" for block in range(BLOCKS))
    for block in range(BLOCKS):
        expected = product(adapter, block, module)
        if module in ("self_attn.q_proj", "self_attn.k_proj"):
            expected = in_file_order(expected, HEADS if module == "self_attn.q_proj" else KV_HEADS)
        found = changed[f"blk.{block}.{TENSORS[module]}.weight"]
        np.testing.assert_allclose(found, expected, atol=0.01)  # float16 of values up to 30
        assert np.abs(expected).max() > 10


def test_what_is_not_changed_is_the_same_byte_for_byte(base: Path, tmp_path: Path) -> None:
    path = merged(base, make_adapter(tmp_path, ["mlp.up_proj"]))
    old, new = weights.read_header(base), weights.read_header(path)
    kinds = {name: tensor.kind for name, tensor in new.tensors.items()}
    for name in old.tensors:
        if "ffn_up" in name:
            assert kinds[name] == F16
        else:
            assert (kinds[name], new.content(name)) == (old.tensors[name].kind, old.content(name))
    assert small_model.metadata(path) == small_model.metadata(base)


@pytest.mark.parametrize(
    ("of_base", "modules", "written", "file_type"),
    [
        (Q4_1, [*TENSORS], F16, 1),
        (Q4_1, ["mlp.up_proj"], F16, 3),
        (Q4_1, [*TENSORS], Q8_0, 3),
        (F16, [*TENSORS], F16, 1),
    ],
)
def test_the_file_says_that_it_is_of_floats_only_where_nothing_is_quantised(
    tmp_path: Path, of_base: GGMLQuantizationType, modules: list[str], written: int, file_type: int
) -> None:
    path = merged(make_model(tmp_path / "base.gguf", of_base), make_adapter(tmp_path, modules), written)
    assert small_model.metadata(path)["general.file_type"] == file_type


def test_a_copy_without_a_change_is_the_file_itself(base: Path, tmp_path: Path) -> None:
    header = weights.read_header(base)
    with (tmp_path / "copy.gguf").open("wb") as out:
        lora.write_gguf(out, header, {})
    assert (tmp_path / "copy.gguf").read_bytes() == base.read_bytes()


def test_q8_0_is_near_and_rows_that_it_cannot_hold_are_float16(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model.gguf", F16, inner=48)
    adapter = make_adapter(tmp_path, inner=48)
    exact, near = (small_model.tensors(merged(model, adapter, kind)) for kind in (F16, Q8_0))
    for name, (kind, values) in near.items():
        assert kind == ("F32" if "norm" in name else "F16" if "ffn_down" in name else "Q8_0")
        np.testing.assert_allclose(values, exact[name][1], atol=0.15)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 2.0),
        ({"lora_alpha": 3}, 0.75),
        ({"use_rslora": True}, 4.0),
        ({"alpha_pattern": {"mlp.up_proj": 1}}, 0.25),
        ({"alpha_pattern": {"layers.0.mlp.up_proj": 12, "up_proj": 1}}, 3.0),
        ({"alpha_pattern": {"down_proj": 1, "o_up_proj": 1, "up": 1}}, 2.0),
        ({"alpha_pattern": {r".*\.0\..*": 1}, "rank_pattern": {"up_proj": 4}, "r": 99}, 0.25),
        ({"init_lora_weights": "gaussian", "modules_to_save": [], "bias": "none"}, 2.0),
    ],
    ids=str,
)
def test_the_scale_is_that_of_peft(base: Path, tmp_path: Path, config: dict[str, Any], scale: float) -> None:
    adapter = make_adapter(tmp_path, ["mlp.up_proj"], **config)
    changed = difference(base, adapter)["blk.0.ffn_up.weight"]
    np.testing.assert_allclose(changed, product(adapter, 0, "mlp.up_proj", scale), atol=0.02)


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "gemma3"])
def test_a_qwen_keeps_the_order_of_its_rows_and_its_float16_sums_are_exact(tmp_path: Path, architecture: str) -> None:
    model = make_model(tmp_path / "model.gguf", F16, architecture)
    adapter = make_adapter(tmp_path / "lora")
    if architecture == "gemma3":
        with pytest.raises(BackendError, match="is a gemma3: adapters can be merged into llama, qwen2, qwen3"):
            merged(model, adapter)
        return
    low = lora.read_adapter(adapter).layers["model.layers.2.self_attn.q_proj"]
    before, after = (small_model.tensors(path)["blk.2.attn_q.weight"][1] for path in (model, merged(model, adapter)))
    expected = (before + np.float32(low.scale) * (low.b @ low.a)).astype(np.float16)
    assert (after == expected.astype(np.float32)).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, None], ids=["F16", "F32", "F64", "BF16"])
def test_matrices_may_be_of_any_float_type(tmp_path: Path, dtype: type | None) -> None:
    exact = lora.read_adapter(make_adapter(tmp_path, ["mlp.up_proj"], dtype=np.float32)).layers
    if dtype is None:
        names = {f"base_model.model.{name}.lora_{half}.weight": (name, half) for name in exact for half in "AB"}
        matrices = {key: exact[name].a if half == "A" else exact[name].b for key, (name, half) in names.items()}
        small_model.write_bfloat16(tmp_path / "adapter_model.safetensors", matrices)
    else:
        make_adapter(tmp_path, ["mlp.up_proj"], dtype=dtype)
    for name, low in lora.read_adapter(tmp_path).layers.items():
        assert low.a.dtype == low.b.dtype == np.float32
        np.testing.assert_allclose(low.a, exact[name].a, rtol=0.01, atol=1e-3)
        np.testing.assert_allclose(low.b, exact[name].b, rtol=0.01, atol=1e-3)


EXTRA = np.ones((2, 2), np.float32)


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ({"peft_type": "IA3"}, "of the kind 'IA3': only LORA"),
        ({"use_dora": True}, "has use_dora=True: it is more than matrices"),
        ({"bias": "all"}, "has bias='all'"),
        ({"modules_to_save": ["lm_head"]}, r"has modules_to_save=\['lm_head'\]"),
        ({"init_lora_weights": "pissa"}, "has init_lora_weights='pissa'"),
        ({"alora_invocation_tokens": [1]}, "has alora_invocation_tokens"),
        ({"tensors": {"base_model.model.lm_head.weight": EXTRA}}, "holds base_model.model.lm_head.weight: only"),
        ({"tensors": {"base_model.model.model.embed_tokens.lora_embedding_A": EXTRA}}, "lora_embedding_A: only"),
        ({"modules": []}, "holds no tensor"),
        ({"r": 8}, r"adapter_config\.json is damaged, at model.*: rank 8, not 4"),
        ({"r": None}, "is damaged"),
        ({"lora_alpha": "many"}, "is damaged"),
        ({"alpha_pattern": {"(": 1}}, "is damaged"),
        ({"tensors": {"base_model.model.model.x.lora_A.weight": EXTRA}}, r"for model\.x it holds \{'A': \(2, 2\)\}"),
        ({"tensors": {"base_model.model.model.x.lora_B.weight": EXTRA * np.nan}}, "not finite"),
        ({"tensors": {"base_model.model.model.x.lora_A.weight": EXTRA.astype(np.int64)}}, "of the type I64"),
    ],
    ids=str,
)
def test_what_is_no_pair_of_matrices_is_refused(tmp_path: Path, made: dict[str, Any], problem: str) -> None:
    with pytest.raises(BackendError, match=problem):
        lora.read_adapter(make_adapter(tmp_path, **made))


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("adapter_model.safetensors", b"", "adapter_model.safetensors is no safetensors file"),
        ("adapter_model.safetensors", b"version https://git-lfs.github.com/spec/v1", "is no safetensors file"),
        ("adapter_model.safetensors", b"\xff" * 99, "is no safetensors file"),
        ("adapter_model.safetensors", b"\x02\0\0\0\0\0\0\0{}", "holds no tensor"),
        ("adapter_config.json", b"[1]", "it holds a list"),
    ],
    ids=["empty", "pointer", "junk", "no tensor", "list"],
)
def test_a_damaged_adapter_is_refused(tmp_path: Path, file: str, content: bytes, problem: str) -> None:
    (make_adapter(tmp_path) / file).write_bytes(content)
    with pytest.raises(BackendError, match=problem):
        lora.read_adapter(tmp_path)


OTHER = {f"base_model.model.model.layers.0.mlp.up_proj.lora_{half}.weight": EXTRA for half in "AB"}
DEEPER = {
    f"base_model.model.model.layers.7.mlp.up_proj.lora_{half}.weight": np.ones(shape, np.float16)
    for half, shape in (("A", (4, 64)), ("B", (96, 4)))
}
HEAD = {f"base_model.model.lm_head.lora_{half}.weight": EXTRA for half in "AB"}
UNKNOWN = {f"base_model.model.model.layers.0.mlp.experts.lora_{half}.weight": EXTRA for half in "AB"}


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ({"tensors": OTHER, "rank_pattern": {"layers.0.mlp.up_proj": 2}}, r"up_proj of shape \(2, 2\), there .*96, 64"),
        ({"tensors": DEEPER}, r"model\.layers\.7\.mlp\.up_proj of shape .* it has no such layer"),
        ({"tensors": HEAD, "rank_pattern": {"lm_head": 2}}, "lm_head of shape .* it has no such layer"),
        ({"tensors": UNKNOWN, "rank_pattern": {"experts": 2}}, "experts of shape .* it has no such layer"),
        ({"blocks": 2}, "for a model of 2 blocks, not 3"),
    ],
)
def test_an_adapter_of_another_model_is_refused_with_both_names(
    base: Path, tmp_path: Path, made: dict[str, Any], problem: str
) -> None:
    adapter = make_adapter(tmp_path, **made)
    with pytest.raises(BackendError, match=problem) as caught:
        merged(base, adapter)
    assert str(adapter) in str(caught.value)
    assert "made for 'its/base'" in str(caught.value)
    assert str(base) in str(caught.value)


@pytest.mark.parametrize("config", [{"layers_to_transform": [0, 1]}, {"target_modules": "model.layers.[01].mlp.*"}])
def test_an_adapter_may_be_meant_for_some_blocks_only(base: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    changed = difference(base, make_adapter(tmp_path, ["mlp.up_proj"], blocks=2, **config))
    assert sorted(changed) == ["blk.0.ffn_up.weight", "blk.1.ffn_up.weight"]


# ---- files that are kept


@pytest.fixture
def own_base(tmp_path: Path) -> Path:
    return make_model(tmp_path / "base.gguf", Q4_1)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "lora")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return lora.cache_folder()


def ready(own_base: Path, adapter: Path) -> tuple[Path, int]:
    """The file, and which one on the disk it is."""
    with lora.merged_model(own_base, adapter) as (path, notice):
        assert notice is None
        return path, path.stat().st_ino


def test_a_file_is_made_once_for_each_base_and_adapter(own_base: Path, adapter: Path, cache: Path) -> None:
    first = ready(own_base, adapter)
    assert ready(own_base, adapter) == first
    assert list(cache.iterdir()) == [first[0]]
    with pytest.raises(BackendError, match="for a model of 2 blocks"):
        ready(own_base, make_adapter(adapter.with_name("other"), blocks=2))
    assert list(cache.iterdir()) == [first[0]]  # what does not fit leaves nothing behind
    other = make_model(own_base.with_name("other.gguf"), Q8_0)
    paths = {first[0], ready(other, adapter)[0], ready(own_base, make_adapter(adapter, ["mlp.up_proj"]))[0]}
    assert len(paths) == len(list(cache.iterdir())) == 3


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    return content[:-99] + bytes([content[-99] ^ 1]) + content[-98:]


@pytest.mark.parametrize("damage", [cut, flipped, lambda content: b""], ids=["cut", "flipped", "empty"])
def test_a_damaged_file_is_made_anew(
    own_base: Path, adapter: Path, cache: Path, damage: Callable[[bytes], bytes]
) -> None:
    path, _ = ready(own_base, adapter)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    again, _ = ready(own_base, adapter)
    assert again.read_bytes() == whole
    assert list(cache.iterdir()) == [again]


def test_of_processes_at_once_one_makes_it_and_all_have_it(own_base: Path, adapter: Path, cache: Path) -> None:
    code = "import sys; from pathlib import Path; from rankr1_rag.backends.openvino.lora import merged_model\n"
    code += "with merged_model(*map(Path, sys.argv[1:])) as (path, notice): print(path, path.stat().st_ino, notice)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code, str(own_base), str(adapter)]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = {process.communicate(timeout=60)[0] for process in running}
    assert said == {f"{ready(own_base, adapter)[0]} {ready(own_base, adapter)[1]} None\n"}
    assert len(list(cache.iterdir())) == 1


@pytest.mark.skipif(not LOCKS, reason="this system has no locks")
def test_who_finds_another_at_work_waits_for_it(
    own_base: Path, adapter: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = ready(own_base, adapter)
    path.unlink()
    lock = locked(cache / f"{path.name.split('.')[0]}.lock")
    waiting = threading.Thread(target=ready, args=(own_base, adapter))
    waiting.start()
    time.sleep(0.3)
    assert not path.exists()
    lock.close()
    waiting.join(30)
    assert path.exists()


@pytest.mark.skipif(not LOCKS, reason="this system has no locks")
def test_but_not_for_ever(own_base: Path, adapter: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora, "PATIENCE", 0.1)
    path, _ = ready(own_base, adapter)
    path.unlink()
    with (
        locked(cache / f"{path.name.split('.')[0]}.lock"),
        lora.merged_model(own_base, adapter) as (instead, notice),
    ):
        assert instead.exists()
        assert "another process has had it for" in str(notice)


def test_where_nothing_can_be_kept_it_is_made_for_once_and_that_is_told(
    own_base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with lora.merged_model(own_base, adapter) as (path, notice):
        assert "blk.0.ffn_up.weight" in small_model.tensors(path)
        assert f"'{tmp_path / 'file'}" in str(notice)
        assert "made again each time" in str(notice)
        assert "XDG_CACHE_HOME" in str(notice)
    assert not path.parent.exists()


def test_where_nothing_can_be_written_at_all_both_folders_are_named(
    own_base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(BackendError, match=r"neither the cache folder \(.*file.*\) nor the temporary one \(.*none"):
        ready(own_base, adapter)


def test_those_used_last_stay_and_what_was_left_half_made_goes(own_base: Path, cache: Path, tmp_path: Path) -> None:
    adapters = [make_adapter(tmp_path / str(scale), lora_alpha=scale) for scale in range(1, lora.KEPT + 2)]
    made = [ready(own_base, adapter)[0] for adapter in adapters[:-1]]
    for age, path in enumerate(made, start=1):
        os.utime(path, (age, age))
    left, others = cache / "killed.part", cache / "at-work.part"
    left.touch()
    others.touch()
    os.utime(left, (1, 1))
    ready(own_base, adapters[0])  # the oldest is used again
    last, _ = ready(own_base, adapters[-1])
    assert sorted(cache.iterdir()) == sorted([made[0], *made[2:], last, others])
