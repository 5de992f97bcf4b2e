"""Windows with the listwise formats of other authors: exact with a perfect judge, `{n}` of each, forced orders."""

import re
from collections.abc import Sequence
from typing import Any

import pytest

from rankr1_rag import Completion, Ranking, Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.prompt import FORMATS

SHOWN = re.compile(r"\[(\d+)\] text (\d+)\b")
LISTWISE = [name for name, format in FORMATS.items() if format.kind == "listwise"]
ASKED: list[Sequence[Any]] = []


def order_of(messages: Sequence[Any]) -> str:
    """All labels, the highest text first."""
    prompt = "\n".join(one["content"] for one in messages)
    labels = sorted(SHOWN.findall(prompt), key=lambda found: -int(found[1]))
    assert len(labels) == len({label for label, _ in labels})
    return " > ".join(f"[{label}]" for label, _ in labels)


def ranked(format: str, n: int = 45, cut: bool = False, **settings: Any) -> Ranking:
    def answer(messages: Sequence[Any]) -> Completion:
        ASKED.append(messages)
        order = order_of(messages)
        last = messages[-1]
        if last["role"] == "assistant" and last["content"].endswith("["):
            return Completion(f"{order[1:]}</answer>")
        if not cut:
            tagged = f"<answer>{order}</answer>" if "<answer>" in FORMATS[format].forced_prefix else order
            return Completion(f"<think>1 of 2</think>\n{tagged}" if FORMATS[format].reasoning else tagged)
        return Completion("<think>[1] is not" if FORMATS[format].reasoning else "", finish_reason="length")

    ASKED.clear()
    return Reranker(Scripted(answer), format=format, **settings).rank("which?", [f"text {one}" for one in range(n)])


@pytest.mark.parametrize("format", LISTWISE)
@pytest.mark.parametrize("cut", [False, True])
def test_a_perfect_judge_gives_the_exact_order_also_if_it_is_forced(format: str, cut: bool) -> None:
    ranking = ranked(format, cut=cut, k=10, step=10, passes=1)
    assert ranking.order[:10] == tuple(range(44, 34, -1))
    assert [len(one.set) for one in ranking.trace] == [20, 20, 20, 15]
    assert (ranking.cost.unparsed, ranking.cost.forced, ranking.cost.lenient) == (0, 4 * cut, 0)
    for messages, comparison in zip(ASKED[:: 1 + cut], ranking.trace, strict=True):
        n = re.search(r"(?:you with|Rank the) (\d+) passages", "\n".join(one["content"] for one in messages))
        assert n is None or int(n[1]) == len(comparison.set)


def test_passes_are_asked_side_by_side() -> None:
    ranking = ranked("reasonrank", n=100, k=30, step=10, passes=3)
    assert ranking.order[:30] == tuple(range(99, 69, -1))
    assert (ranking.cost.comparisons, ranking.cost.rounds) == (27, 13)
    assert ranked("reasonrank", n=100, k=30, step=10, passes=2).order[20:30] != ranking.order[20:30]


def test_where_the_context_makes_sets_smaller_the_same_part_of_them_overlaps() -> None:
    backend = Scripted(lambda messages: order_of(messages), context=900, count=lambda text: len(text.split()))
    texts = [f"text {one} " + "word " * 200 for one in range(40)]
    for distance in (1, 5, 10, 19):
        reranker = Reranker(backend, format="rank-zephyr", k=2, size=20, step=distance, passes=1, clip="head")
        first, second, *_ = reranker.rank("which?", texts).trace
        size = len(first.set)
        assert 4 <= size < 10
        assert len({*first.set} & {*second.set}) == size - max(1, distance * size // 20)
