"""Adapters merged into GGUF files: the sums, what is refused, and the files that are kept."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
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
    half = len(rows) // heads // 2
    return rows[[2 * head * half + at * half + pair for head in range(heads) for pair in range(half) for at in (0, 1)]]


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
    assert {new.tensors[name].kind for name in old.tensors if "ffn_up" in name} == {F16}
    for name in [name for name in old.tensors if "ffn_up" not in name]:
        assert (new.tensors[name].kind, new.content(name)) == (old.tensors[name].kind, old.content(name))
    assert small_model.metadata(path) == small_model.metadata(base)
    with (tmp_path / "copy.gguf").open("wb") as out:
        lora.write_gguf(out, old, {})
    assert (tmp_path / "copy.gguf").read_bytes() == base.read_bytes()


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


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
def test_a_qwen_keeps_the_order_of_its_rows_and_its_float16_sums_are_exact(tmp_path: Path, architecture: str) -> None:
    model = make_model(tmp_path / "model.gguf", F16, architecture)
    adapter = make_adapter(tmp_path / "lora")
    low = lora.read_adapter(adapter).layers["model.layers.2.self_attn.q_proj"]
    before, after = (small_model.tensors(path)["blk.2.attn_q.weight"][1] for path in (model, merged(model, adapter)))
    expected = (before + np.float32(low.scale) * (low.b @ low.a)).astype(np.float16)
    assert (after == expected.astype(np.float32)).all()


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="is a gemma3: adapters can be merged into llama, qwen2, qwen3"):
        merged(make_model(tmp_path / "model.gguf", F16, "gemma3"), make_adapter(tmp_path / "lora"))


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
BEGIN = "base_model.model."


def extra(layer: str, halves: str = "AB", of: Array = EXTRA) -> dict[str, Any]:
    """Tensors for one more layer."""
    return {"tensors": {f"{BEGIN}{layer}.lora_{half}.weight": of for half in halves}}


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ({"peft_type": "IA3"}, "of the kind 'IA3': only LORA"),
        ({"use_dora": True}, "has use_dora=True: it is more than matrices"),
        ({"bias": "all"}, "has bias='all'"),
        ({"modules_to_save": ["lm_head"]}, r"has modules_to_save=\['lm_head'\]"),
        ({"init_lora_weights": "pissa"}, "has init_lora_weights='pissa'"),
        ({"alora_invocation_tokens": [1]}, "has alora_invocation_tokens"),
        ({"tensors": {f"{BEGIN}lm_head.weight": EXTRA}}, "holds base_model.model.lm_head.weight: only"),
        ({"tensors": {f"{BEGIN}model.embed_tokens.lora_embedding_A": EXTRA}}, "lora_embedding_A: only"),
        ({"modules": []}, "holds no tensor"),
        ({"r": 8}, r"adapter_config\.json is damaged, at model.*: rank 8, not 4"),
        ({"r": None}, "is damaged"),
        ({"lora_alpha": "many"}, "is damaged"),
        ({"alpha_pattern": {"(": 1}}, "is damaged"),
        (extra("model.x", "A"), r"for model\.x it holds \{'A': \(2, 2\)\}"),
        (extra("model.x", "B", EXTRA * np.nan), "not finite"),
        (extra("model.x", "A", EXTRA.astype(np.int64)), "of the type I64"),
        (b"", "adapter_model.safetensors is no safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1", "is no safetensors file"),
        (b"\xff" * 99, "is no safetensors file"),
        (b"\x02\0\0\0\0\0\0\0{}", "holds no tensor"),
        ("[1]", "it holds a list"),
    ],
    ids=str,
)
def test_what_is_damaged_or_no_pair_of_matrices_is_refused(
    tmp_path: Path, made: dict[str, Any] | bytes | str, problem: str
) -> None:
    make_adapter(tmp_path, **(made if isinstance(made, dict) else {}))
    if isinstance(made, bytes):
        (tmp_path / "adapter_model.safetensors").write_bytes(made)
    elif isinstance(made, str):
        (tmp_path / "adapter_config.json").write_text(made)
    with pytest.raises(BackendError, match=problem):
        lora.read_adapter(tmp_path)


DEEPER = extra("model.layers.7.mlp.up_proj", "A", np.ones((4, 64)))["tensors"]
DEEPER |= extra("model.layers.7.mlp.up_proj", "B", np.ones((96, 4)))["tensors"]


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (extra("model.layers.0.mlp.up_proj") | {"rank_pattern": {"0.mlp.up_proj": 2}}, r"\(2, 2\), there .*96, 64"),
        ({"tensors": DEEPER}, r"model\.layers\.7\.mlp\.up_proj of shape .* it has no such layer"),
        (extra("lm_head") | {"rank_pattern": {"lm_head": 2}}, "lm_head of shape .* it has no such layer"),
        (extra("model.layers.0.x") | {"rank_pattern": {"x": 2}}, r"0\.x of shape .* it has no such layer"),
        ({"blocks": 2}, "for a model of 2 blocks, not 3"),
    ],
    ids=["shape", "block", "head", "layer", "blocks"],
)
def test_an_adapter_of_another_model_is_refused_with_both_names(
    base: Path, tmp_path: Path, made: dict[str, Any], problem: str
) -> None:
    adapter = make_adapter(tmp_path, **made)
    both = rf"{adapter} \(made for 'its/base'\) does not fit {base}"
    with pytest.raises(BackendError, match=f"{both}: .*{problem}"):
        merged(base, adapter)


@pytest.mark.parametrize("config", [{"layers_to_transform": [0, 1]}, {"target_modules": "model.layers.[01].mlp.*"}])
def test_an_adapter_may_be_meant_for_some_blocks_only(base: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    changed = difference(base, make_adapter(tmp_path, ["mlp.up_proj"], blocks=2, **config))
    assert sorted(changed) == ["blk.0.ffn_up.weight", "blk.1.ffn_up.weight"]


# ---- files that are kept


@dataclass
class Case:
    """A base, an adapter, and the folder where merged files are kept."""

    base: Path
    adapter: Path
    cache: Path

    def ready(self, base: Path | None = None, adapter: Path | None = None) -> Path:
        with lora.merged_model(base or self.base, adapter or self.adapter) as path:
            return path


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    base = make_model(tmp_path / "base.gguf", Q4_1)
    return Case(base, make_adapter(tmp_path / "lora"), lora.cache_folder())


def test_a_file_is_made_once_for_each_base_and_adapter(
    case: Case, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "rankr1_rag"):
        first = case.ready()
        inode = first.stat().st_ino
        assert (case.ready(), first.stat().st_ino) == (first, inode)
    merging = f"merging the adapter {case.adapter} into {case.base}"
    assert [record.getMessage().partition(" took ")[0] for record in caplog.records] == [merging] * 2
    with pytest.raises(BackendError, match="for a model of 2 blocks"):
        case.ready(adapter=make_adapter(tmp_path / "other", blocks=2))
    assert list(case.cache.iterdir()) == [first]  # what does not fit leaves nothing behind
    another = case.ready(base=make_model(tmp_path / "other.gguf", Q8_0))
    assert len({first, another, case.ready(adapter=make_adapter(tmp_path / "other", ["mlp.up_proj"]))}) == 3
    assert len(list(case.cache.iterdir())) == 3


def flipped(content: bytes) -> bytes:
    return content[:-99] + bytes([content[-99] ^ 1]) + content[-98:]


@pytest.mark.parametrize("damage", [lambda content: content[:999], flipped, lambda _: b""], ids=["cut", "bit", "empty"])
def test_a_damaged_file_is_made_again(case: Case, damage: Callable[[bytes], bytes]) -> None:
    path = case.ready()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    again = case.ready()
    assert again.read_bytes() == whole
    assert list(case.cache.iterdir()) == [again]


def test_of_processes_at_once_one_makes_it_and_all_have_it(case: Case) -> None:
    code = "import sys; from pathlib import Path; from rankr1_rag.backends.openvino.lora import merged_model\n"
    code += "with merged_model(*map(Path, sys.argv[1:])) as path: print(path, path.stat().st_ino)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code, str(case.base), str(case.adapter)]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = {process.communicate(timeout=60)[0] for process in running}
    assert said == {f"{case.ready()} {case.ready().stat().st_ino}\n"}
    assert len(list(case.cache.iterdir())) == 1


@pytest.mark.skipif(not LOCKS, reason="this system has no locks")
def test_who_finds_another_at_work_waits_for_it_but_not_for_ever(
    case: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = case.ready()
    path.unlink()
    with locked(case.cache / f"{path.name.split('.')[0]}.lock"):
        with monkeypatch.context() as patch:
            patch.setattr(lora, "PATIENCE", 0.1)
            with lora.merged_model(case.base, case.adapter) as instead:
                assert instead.exists()
                assert "another process has had it for" in caplog.text
        waiting = threading.Thread(target=case.ready)
        waiting.start()
        time.sleep(0.3)
        assert not path.exists()
    waiting.join(30)
    assert path.exists()


def test_where_nothing_can_be_kept_it_is_made_for_once_with_a_warning(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with lora.merged_model(case.base, case.adapter) as path:
        assert "blk.0.ffn_up.weight" in small_model.tensors(path)
        assert all(words in caplog.text for words in (f"'{tmp_path / 'file'}", "made again each", "XDG_CACHE_HOME"))
    assert not path.parent.exists()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(BackendError, match=r"neither the cache folder \(.*file.*\) nor the temporary one \(.*none"):
        case.ready()


def test_those_used_last_stay_and_what_was_left_half_made_goes(case: Case, tmp_path: Path) -> None:
    adapters = [make_adapter(tmp_path / str(scale), lora_alpha=scale) for scale in range(1, lora.KEPT + 2)]
    made = [case.ready(adapter=adapter) for adapter in adapters[:-1]]
    left, others = case.cache / "killed.part", case.cache / "at-work.part"
    left.touch()
    others.touch()
    for age, path in enumerate([left, *made], start=1):
        os.utime(path, (age, age))
    case.ready(adapter=adapters[0])  # the oldest is used again
    last = case.ready(adapter=adapters[-1])
    assert sorted(case.cache.iterdir()) == sorted([made[0], *made[2:], last, others])
