"""The contract with users: public names with their parameters, and recorded runs that must come out the same.

The runs and the way to record them again are in `tests/golden/record.py`.
"""

import inspect
import json
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import rankr1_rag
from rankr1_rag import RankR1Error
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.prompt import FORMATS
from rankr1_rag.selection import ALGORITHMS, Done, play, step
from tests.golden import record

ERRORS = {"BackendError", "BackendUnavailable", "FileError", "LoopError", "PromptTooLong", "RankR1Error"}
ERRORS |= {"StoreError", "UnparsedError"}


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("name", "by_position", "by_name"),
    [
        ("Passage", "id text title", ""),
        ("Query", "id text", ""),
        ("Completion", "text", "prompt_tokens cached_tokens completion_tokens finish_reason logprobs stored"),
        ("Comparison", "set answer completion round", "reasoning parsed forced sample probabilities known lenient"),
        ("Comparison", "", "reasoning_tokens"),
        ("Cost", "", "comparisons rounds passages_read prompt_tokens cached_tokens completion_tokens reasoning_tokens"),
        ("Cost", "", "unparsed forced lenient clipped clipped_tokens stored seconds"),
        ("Explanation", "", "rank position passage selected won lost comparison failure"),
        ("Ranking", "query candidates order", "k trace clipped seconds failure chosen retrieved clipped_tokens"),
        ("Ranking", "", "truncated"),
        ("Truncated", "reason limit selected unanswered", ""),
        ("Reranker", "backend", "k size algorithm format votes seed temperature probabilities reasoning_tokens force"),
        ("Reranker", "", "strict strict_format clip on_failure fusion ordered in_flight"),
        ("Reranker", "", "query_tokens passage_tokens hops retrieve deadline budget_tokens"),
        ("Reranker.rank", "self query passages", "k retrieve ordered deadline on_event"),
        ("Reranker.arank", "self query passages", "k retrieve ordered deadline on_event"),
        ("Reranker.end_within", "self seconds", ""),
        ("Reranker.rank_many", "self items", "live progress"),
        ("Reranker.arank_many", "self items", "progress"),
    ],
)
def test_a_public_name_has_these_parameters(name: str, by_position: str, by_name: str) -> None:
    head, _, method = name.partition(".")
    assert head in rankr1_rag.__all__
    owner = getattr(rankr1_rag, head)
    found = parameters(getattr(owner, method) if method else owner)
    assert found[: len(by_position.split())] == by_position.split()
    assert set(by_name.split()) <= set(found)


def test_the_errors_are_public_and_have_one_root() -> None:
    assert set(rankr1_rag.__all__) >= ERRORS
    assert all(issubclass(getattr(rankr1_rag, name), RankR1Error) for name in ERRORS)


def test_the_names_of_selections_formats_and_the_scripted_backend() -> None:
    assert set(ALGORITHMS) == {"ahead", "bubblesort", "heapsort", "tournament", "window"}
    for algorithm in ALGORITHMS.values():
        assert play(algorithm(30, 5, 4), lambda shown: tuple(sorted(shown, reverse=True))) == [29, 28, 27, 26, 25]
    assert step(ALGORITHMS["heapsort"](1, 1, 2)) == Done([0])
    published = {"rank-r1-v0.1", "rank-r1-v0.2", "setwise-sft-v0.1"}
    others = {"reasonrank", "rearank", "rank-k", "rank-zephyr", "qwen3-listwise", "qwen3-listwise-reasoning"}
    others |= {"grouprank", "qwen3-reranker", "rank1", "mxbai-rerank-v2"}
    others |= {"listwise-v1", "naming-v1", "label-v1", "naming-v2", "label-v2"}
    assert set(FORMATS) == published | others
    assert {"model", "identity", "context", "can_continue", "count"} <= set(parameters(Scripted)[1:])


@pytest.mark.parametrize("module", ["llama_index.postprocessor.rankr1", "langchain_rankr1"])
@pytest.mark.filterwarnings("ignore")  # the frameworks warn
def test_the_component_of_a_framework_has_this_import_path(module: str) -> None:
    pytest.importorskip("llama_index.core" if module.startswith("llama") else "langchain_core")
    if not find_spec(module.partition(".")[0]):
        pytest.skip(f"{module} is not installed")
    assert isinstance(import_module(module).RankR1Rerank, type)


@pytest.mark.parametrize(
    ("program", "commands"),
    [
        ("rankr1_rag", ["rerank", "explain", "demo", "train", "train sft", "train grpo"]),
        ("rankr1_eval", ["qa", "ir", "score", "selection", "compare", "examples", "comparisons", "reproduce"]),
    ],
)
def test_every_command_has_help(program: str, commands: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec(program) is None:
        pytest.skip(f"{program} is not installed")
    main = import_module(f"{program}.cli").main
    for command in commands:
        monkeypatch.setattr(sys, "argv", [program, *command.split(), "--help"])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code in (0, None), command


@pytest.mark.parametrize("run", record.RUNS)
def test_a_run_comes_out_as_recorded(run: str, tmp_path: Path) -> None:
    if run == "job":
        pytest.importorskip("openai")
    recorded, now = (record.FOLDER / f"{run}.json").read_text(), record.to_text(record.RUNS[run](tmp_path))
    assert not difference(json.loads(recorded), json.loads(now))
    assert recorded == now


def difference(recorded: Any, now: Any, path: str = "") -> str:
    """The first place where two results differ; "" if they are equal. The texts are too long for an assertion."""
    if isinstance(recorded, dict) and isinstance(now, dict):
        parts = [(key, recorded.get(key, "missing"), now.get(key, "missing")) for key in sorted(recorded | now)]
    elif isinstance(recorded, list) and isinstance(now, list) and len(recorded) == len(now):
        parts = list(zip(range(len(now)), recorded, now, strict=True))
    else:
        return "" if recorded == now else f"{path}: {recorded!r:.500} is now {now!r:.500}"
    return next(filter(None, (difference(old, new, f"{path}/{key}") for key, old, new in parts)), "")
