"""The requests of a comparison: the reasoning budget, the forced answer, the texts that fit the context."""

import re
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from rankr1_rag import Completion, Passage, Ranking, Reranker
from rankr1_rag.backends import Request
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import stored

PAIR = ["one", "two"]
CUT = Completion("<think>let me see, the first", prompt_tokens=50, completion_tokens=8, finish_reason="length")
LABEL = Completion("2]</answer>", prompt_tokens=60, cached_tokens=50, completion_tokens=5)
FIRST = Completion("<answer>[1]</answer>")


class Recorded(Scripted):
    """A backend that returns one completion after another and keeps the requests."""

    def __init__(self, *completions: Completion, **options: Any) -> None:
        super().__init__(lambda _: next(answers), count=lambda text: len(text.split()), **options)
        answers, self.requests = chain(completions, repeat(completions[-1])), list[Request]()

    async def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        return await super().complete(request)

    def shown(self) -> list[str]:
        return [line for line in self.requests[0].messages[1]["content"].splitlines() if line.startswith("[")]


def rank(backend: Recorded, passages: list[str] = PAIR, query: str = "which?", **settings: Any) -> Ranking:
    return Reranker(backend, **settings).rank(query, passages)


def test_truncated_reasoning_costs_a_few_tokens_and_never_a_comparison() -> None:
    backend = Recorded(CUT, LABEL)
    ranking = rank(backend, reasoning_tokens=8)
    (comparison,) = ranking.trace
    assert (ranking.order, comparison.forced, comparison.parsed) == ((1, 0), True, True)
    assert comparison.completion.text == "<think>let me see, the first </think> <answer>[2]</answer>"
    assert (comparison.reasoning, comparison.reasoning_tokens) == ("let me see, the first", 8)
    assert (ranking.cost.prompt_tokens, ranking.cost.cached_tokens, ranking.cost.completion_tokens) == (110, 50, 13)
    reasoning, label = backend.requests
    assert reasoning.max_tokens == 8 + 16
    assert label.messages[-1] == {"role": "assistant", "content": "<think>let me see, the first </think> <answer>["}


@pytest.mark.parametrize("can_continue", [True, False])
def test_a_label_is_forced_in_the_same_turn_or_in_a_new_one(can_continue: bool) -> None:
    backend = Recorded(CUT, Completion("<answer>[2]</answer>"), can_continue=can_continue)
    assert rank(backend).order == (1, 0)
    begun = "" if can_continue else "<answer>["
    assert backend.requests[1].choices == (f"{begun}1]</answer>", f"{begun}2]</answer>")
    assert backend.requests[1].messages[-1]["role"] == ("assistant" if can_continue else "user")


@pytest.mark.parametrize("example", ["The form is <answer>[1]</answer>. Now", "like <answer>[2]</answer>, so let me"])
@pytest.mark.parametrize("opened", ["<think>", ""], ids=["by the model", "by the template"])
def test_an_example_quoted_in_truncated_reasoning_is_no_answer(opened: str, example: str) -> None:
    quoted = Completion(f"{opened}{example}", finish_reason="length")
    assert rank(Recorded(quoted, LABEL)).order == (1, 0)
    for can_continue in (True, False):
        ranking = rank(Recorded(quoted, Completion("the first"), can_continue=can_continue))
        assert (ranking.order, ranking.cost.forced, ranking.cost.unparsed) == ((0, 1), 1, 1)


@pytest.mark.parametrize(
    ("text", "first"),
    [("[2]", 1), (" 2\n", 1), ("[2]</answer>", 1), ("12", 11), ("12.", 11)]
    + [(text, None) for text in ("", "answer", "[13]", "13", "0", "[0]", "1 2")],
)
def test_a_forced_label_may_come_without_its_tags_and_is_that_number_and_no_other(text: str, first: int | None) -> None:
    backend = Recorded(CUT, Completion(text), can_continue=False)
    ranking = rank(backend, [str(n) for n in range(12)], k=1)
    assert (ranking.order[0], ranking.cost.unparsed, len(backend.requests)) == (first or 0, int(first is None), 2)


@pytest.mark.parametrize(
    ("force", "first", "requests"),
    [
        ("truncated", Completion("The second one."), 1),
        ("unparsed", Completion("The second one."), 2),
        ("never", Completion("The second one."), 1),
        ("never", CUT, 1),
    ],
)
def test_force_says_when_a_label_is_forced(force: str, first: Completion, requests: int) -> None:
    backend = Recorded(first, LABEL)
    assert rank(backend, force=force).cost.unparsed == (requests == 1)
    assert len(backend.requests) == requests


def test_without_a_budget_the_label_is_requested_at_once() -> None:
    backend = Recorded(LABEL)
    assert rank(backend, reasoning_tokens=0).order == (1, 0)
    assert backend.requests[0].messages[-1]["content"] == "<think> </think> <answer>["


def test_a_format_without_reasoning_has_no_budget_and_no_tokens_of_reasoning() -> None:
    backend = Recorded(Completion("<answer>[2]</answer>", completion_tokens=8))
    assert rank(backend, format="setwise-sft-v0.1", reasoning_tokens=500).cost.reasoning_tokens == 0
    assert backend.requests[0].max_tokens == 16


def test_reasoning_tokens_are_all_tokens_before_the_answer() -> None:
    text = Completion("<think>one two three</think> <answer>[2]</answer>", completion_tokens=4)
    for context in (None, 10_000):
        trace = rank(Recorded(text, context=context), ["a", "b", "c"], size=2, k=2).trace
        assert [one.reasoning_tokens for one in trace] == [2] * len(trace)
    odd = Completion("<think>x</think>\ud800 <answer>[2]</answer>", completion_tokens=9)  # no tokenizer takes it
    ranking = Reranker(Scripted(lambda _: odd, count=lambda text: len(text.encode()))).rank("which?", PAIR)
    assert (ranking.order, ranking.cost.reasoning_tokens) == ((1, 0), 0)


def test_the_votes_on_a_set_are_samples_of_one_seed_and_temperature() -> None:
    backend = Recorded(FIRST)
    ranking = rank(backend, votes=8, temperature=0.7, seed=5)
    assert len({(comparison.set, comparison.sample) for comparison in ranking.trace}) == 8
    assert {(request.temperature, request.seed) for request in backend.requests} == {(0.7, 5)}


def test_the_cost_counts_the_comparisons_from_a_store(tmp_path: Path) -> None:
    rankings = []
    for _ in range(2):
        with Reranker(stored(Recorded(CUT, LABEL), tmp_path / "store.sqlite"), reasoning_tokens=8) as reranker:
            rankings.append(reranker.rank("which?", PAIR))
    before, after = rankings
    assert (before.cost.stored, after.cost.stored) == (0, 1)
    assert (before.cost.prompt_tokens, before.order) == (after.cost.prompt_tokens, after.order)


def test_passages_share_what_the_context_leaves_and_a_clip_is_counted() -> None:
    backend = Recorded(FIRST, context=1_000)
    ranking = rank(backend, ["short", "word " * 20_000, "w " * 5_000], reasoning_tokens=100)
    lengths = [len(line.split()) for line in backend.shown()]
    assert (ranking.cost.clipped, lengths[0]) == (2, 2)
    assert abs(lengths[1] - lengths[2]) < 5
    prompt = sum(len(message["content"].split()) for message in backend.requests[0].messages)
    assert 600 < prompt + backend.requests[0].max_tokens < 1_000


def test_a_text_that_fits_is_shown_whole_and_a_query_takes_at_most_a_quarter_of_the_context() -> None:
    backend = Recorded(FIRST, context=10_000)
    assert rank(backend, ["word " * 200, "other"]).cost.clipped == 0
    assert len(backend.shown()[0].split()) == 201
    ranking = rank(Recorded(FIRST, context=1_000), query="why " * 5_000, reasoning_tokens=10)
    assert (ranking.cost.clipped, ranking.query.text) == (1, "why " * 5_000)


def test_the_limits_of_the_paper_can_be_set() -> None:
    backend = Recorded(FIRST)
    ranking = rank(backend, ["word " * 600, "other"], "q " * 50, query_tokens=32, passage_tokens=512)
    assert (ranking.cost.clipped, len(backend.shown()[0].split())) == (2, 513)
    assert backend.requests[0].messages[1]["content"].count("q ") <= 32


@pytest.mark.parametrize(
    ("words", "context", "settings", "size", "clipped"),
    [
        (500, 20 * 600, {}, 20, 0),
        (500, 20 * 300, {}, 20, 20),  # a share of 256 words is enough
        (500, 20 * 200, {}, 14, 20),
        (500, 20 * 100, {}, 7, 20),
        (500, 1_500, {}, 5, 20),
        (500, 1_000, {}, 4, 20),
        (500, 1_000, {"size": 3}, 3, 20),
        (100, 20 * 100, {}, 16, 0),  # the texts fit in smaller sets
        (500, 20 * 100, {"passage_tokens": 64}, 20, 20),
    ],
)
def test_fewer_passages_are_shown_at_once_before_much_is_cut(
    words: int, context: int, settings: Any, size: int, clipped: int
) -> None:
    backend = Recorded(FIRST, context=context)
    passages = [f"{n} " + "word " * (words - 1) for n in range(20)]
    ranking = rank(backend, passages, reasoning_tokens=10, algorithm="heapsort", **settings)
    assert max(len(one.set) for one in ranking.trace) == pytest.approx(size, abs=1)
    assert ranking.cost.clipped == clipped
    assert max(sum(len(m["content"].split()) for m in request.messages) for request in backend.requests) < context - 150
    assert (ranking.cost.clipped_tokens > 0) == (clipped > 0)
    assert sorted(ranking.order) == list(range(20))


def test_a_window_of_a_passage_that_does_not_fit_holds_the_words_of_the_query_and_its_title() -> None:
    text = "filler " * 300 + "The old lighthouse burned in 1922. " + "filler " * 300
    passages = [Passage("a", text, "On lights"), Passage("b", "short")]
    backends = {clip: Recorded(FIRST, context=600) for clip in ("window", "head")}
    costs = {
        clip: Reranker(backend, reasoning_tokens=10, clip=clip).rank("When did the lighthouse burn?", passages).cost  # type: ignore[arg-type]
        for clip, backend in backends.items()
    }
    window, head = (backend.shown()[0] for backend in backends.values())
    assert re.fullmatch(r"\[1\] On lights … filler .* The old lighthouse burned in 1922\. filler .* …", window)
    assert re.fullmatch(r"\[1\] On lights filler .* filler", head)
    assert costs["window"].clipped == costs["head"].clipped == 1
    shown = len(window.split()) - 1 - 2  # without the label and the two ellipses
    assert costs["window"].clipped_tokens == pytest.approx(608 - shown, abs=3)


@pytest.mark.parametrize(
    ("words", "settings", "logged"),
    [
        (700, {}, r"(?s)query 'which\?': \d\d % of the words .* not shown, as a context of 3900 .* context= .* size= "),
        (700, {"passage_tokens": 64}, r"\d\d % .* reads 64 tokens of each passage: .* passage_tokens="),
        (300, {"k": 1}, ""),
    ],
)
def test_a_reranker_warns_once_if_more_than_a_quarter_of_the_words_is_cut(
    words: int, settings: Any, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    reranker = Reranker(Recorded(FIRST, context=3_900), reasoning_tokens=1_500, **settings)
    for _ in range(2):
        reranker.rank("which?", ["word " * words] * 20)
    assert len(caplog.records) == bool(logged)
    assert re.search(logged, caplog.text)


def test_a_cut_in_a_language_without_spaces_is_noticed_too(caplog: pytest.LogCaptureFixture) -> None:
    Reranker(Scripted(lambda _: FIRST, context=3_900), k=1).rank("which?", ["\u6708\u4eae" * 3_000] * 20)
    assert re.search(r"9\d % .* not shown", caplog.text)


def test_a_context_too_small_for_the_set_is_an_error_that_names_what_to_lower() -> None:
    problem = r"of 512 tokens leaves 0 .* set context= .* size \(20\) below 4, or reasoning_tokens \(1024\)$"
    with pytest.raises(ValueError, match=problem):
        rank(Recorded(FIRST, context=512), ["a"] * 30)
