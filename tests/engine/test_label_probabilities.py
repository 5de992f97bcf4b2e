"""Label probabilities through the reranker: their requests, the scores made of them, votes on unsure answers."""

import json
import re
from collections.abc import Mapping
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankr1_rag import BackendError, Completion, Ranking, Reranker, UnparsedError
from rankr1_rag.backends import Request
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import stored
from rankr1_rag.io.jsonl import ranking_from_json, ranking_to_json, to_line
from rankr1_rag.scoring import Outcomes
from rankr1_rag.types import Comparison, TokenLogprob
from tests.spelling import spelled

_LINE = re.compile(r"^\[(\d+)\] (.*)$", re.MULTILINE)


class Spelling(Scripted):
    """A model of a known mind: each passage has a weight; labels are spelled digit by digit, as most models do."""

    def __init__(self, weights: Mapping[str, float], *, free: str = "", first: float = 0.0) -> None:
        super().__init__(str, identity="same")
        self.weights, self.free, self.first, self.requests = weights, free, first, list[Request]()

    async def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        if not request.choices:
            label = max(self.odds(request), key=self.odds(request).__getitem__)
            text = self.free.replace("N", label) or "<think>I wonder"
            return Completion(text, 90, 0, 9, "stop" if self.free else "length")
        begun = request.messages[-1]["content"].rpartition("[")[2]
        whole = {f"{label}]</answer>": p for label, p in self.odds(request).items()}
        odds = {choice[len(begun) :]: p for choice, p in whole.items() if choice.startswith(begun)}
        odds = {choice: odds[choice] for choice in request.choices}
        chosen = max(odds, key=odds.__getitem__)
        return Completion(chosen, 100, 90, 2, "stop", spelled(odds, chosen) if request.logprobs else None)

    def odds(self, request: Request) -> dict[str, float]:
        shown = _LINE.findall(request.messages[1]["content"])
        weights = {label: self.weights[text] + self.first * (label == "1") for label, text in shown}
        return {label: weight / sum(weights.values()) for label, weight in weights.items()}


def ranked(weights: Mapping[str, float], backend: Spelling | None = None, **settings: Any) -> tuple[Ranking, Spelling]:
    backend = backend or Spelling(weights)
    return Reranker(backend, k=3, **settings).rank("which?", list(weights)), backend


TWELVE = {f"passage {letter}": float(weight) for letter, weight in zip("abcdefghijkl", range(1, 13), strict=True)}


def test_a_comparison_holds_the_probability_of_each_of_its_passages() -> None:
    ranking, backend = ranked(TWELVE, probabilities=True)
    first = ranking.trace[0]
    assert (first.answer, first.probabilities) == ((11,), pytest.approx([weight / 78 for weight in range(1, 13)]))
    assert all(sum(one.probabilities or ()) == pytest.approx(1) for one in ranking.trace)
    assert [(len(one.choices), one.logprobs) for one in backend.requests[:2]] == [(0, 0), (12, 20)]
    assert ranking.cost.reasoning_tokens == 9 * ranking.cost.comparisons  # all of a truncated text


def test_one_short_request_more_separates_labels_that_begin_alike() -> None:
    ranking, _ = ranked({name: 13 - weight for name, weight in TWELVE.items()}, probabilities=True)
    # label 1: its log-probabilities have the rest of 10 to 12 too
    assert (ranking.trace[0].answer, ranking.trace[0].completion.prompt_tokens) == ((0,), 190)
    middle = {name: 30.0 if name.endswith("e") else weight for name, weight in TWELVE.items()}
    ranking, backend = ranked(middle, probabilities=True)
    # label 5: 1 and 10 to 12 need a request
    assert (ranking.trace[0].answer, ranking.trace[0].completion.prompt_tokens) == ((4,), 290)
    assert backend.requests[2].messages[-1]["content"].endswith("<answer>[1")
    assert backend.requests[2].choices == ("]</answer>", "0]</answer>", "1]</answer>", "2]</answer>")
    assert ranking.trace[0].probabilities == pytest.approx([weight / 103 for weight in middle.values()])


def test_an_answer_is_requested_again_from_its_place_in_the_text() -> None:
    free = "<think>Hm. The form is <answer>[1]</answer>.</think>\n<answer>[N]</answer>"
    ranking, backend = ranked(TWELVE, Spelling(TWELVE, free=free), probabilities=True)
    first = ranking.trace[0]
    assert (first.forced, first.completion.text) == (False, free.replace("N", "12"))
    assert backend.requests[1].messages[-1]["content"] == free.partition("N")[0]
    assert first.probabilities == pytest.approx([weight / 78 for weight in range(1, 13)])


def test_an_answer_in_another_form_is_followed_by_a_request_for_the_label() -> None:
    ranking, backend = ranked(TWELVE, Spelling(TWELVE, free="<think>Hm.</think> Passage N."), probabilities=True)
    first = ranking.trace[0]
    assert (first.answer, first.lenient, first.forced) == ((11,), True, False)
    assert backend.requests[1].messages[-1]["content"] == "<think>Hm.</think> Passage 12. <answer>["
    assert first.probabilities == pytest.approx([weight / 78 for weight in range(1, 13)])


def test_scores_are_the_probabilities_strictly_decrease_and_survive_a_file() -> None:
    ranking, _ = ranked(TWELVE, probabilities=True)
    assert (ranking.score_meaning, ranking.order[:3]) == ("probability", (11, 10, 9))
    shares = [12 / 78, min(12 / 78, 11 / 66), min(12 / 78, 10 / 55)]
    assert ranking.scores[:3] == pytest.approx(shares, abs=0.01)
    for trace in (True, False):
        again = ranking_from_json(json.loads(to_line(ranking_to_json(ranking, trace=trace))))
        assert (again.scores, again.score_meaning) == (ranking.scores, "probability")
        assert again.trace == (ranking.trace if trace else ())
    many = {f"p{i}": 1.0 for i in range(10_000)}
    for scores in (ranking.scores, Reranker(Spelling(many), k=2, probabilities=True).rank("which?", [*many]).scores):
        assert (np.diff(np.asarray(scores, dtype=np.float32)) < 0).all()
        assert 0 < min(scores) < max(scores) <= 1
    assert len({f"{score:.6f}" for score in scores}) == 10_000


def test_a_guess_that_a_passage_lost_does_not_lower_its_score() -> None:
    weights = {f"p{i}": 10.0**-i for i in range(60)}
    ranking = Reranker(Spelling(weights), k=10, algorithm="ahead", probabilities=True).rank("which?", list(weights))
    assert min(ranking.scores[:10]) > 0.8


@pytest.mark.parametrize(
    ("settings", "meaning"),
    [
        ({}, "ordinal"),
        ({"votes": 3}, "votes"),
        ({"probabilities": True, "fusion": 60}, "ordinal"),
        ({"probabilities": True}, "probability"),
    ],
)
def test_scores_mean_what_was_requested(settings: dict[str, Any], meaning: str) -> None:
    ranking, backend = ranked(TWELVE, **settings)
    assert (ranking.score_meaning, ranking.scores[0] == pytest.approx(1.0)) == (meaning, meaning != "probability")
    probable = "probabilities" in settings
    assert (ranking.trace[0].probabilities is not None) == any(one.logprobs for one in backend.requests) == probable


def test_listwise_votes_are_no_shares_of_a_passage() -> None:
    backend = Scripted(lambda _: "<answer>[1] > [2]</answer>")
    assert Reranker(backend, format="listwise-v1", votes=2).rank("q", ["a", "b", "c"]).score_meaning == "ordinal"


def test_a_vote_in_a_set_that_was_lost_is_no_win() -> None:
    def vote(shown: tuple[int, ...], best: int, number: int) -> Comparison:
        return Comparison(shown, (best,), Completion(""), number)

    trace = [vote((0, 1), 0, 0), vote((1, 0), 0, 0), vote((0, 2), 2, 1), vote((2, 0), 0, 1), vote((0, 2, 1), 2, 2)]
    trace += [vote((0, 2), 2, 1)]
    outcomes = Outcomes(trace)
    assert outcomes.share(0) == outcomes.share(3) == 1.0  # 3 was never shown: the only one left
    assert outcomes.deciding(0) is trace[1]


@pytest.mark.parametrize(
    ("weights", "votes"),
    [
        ({f"p{i}": 10.0 ** (6 - i) for i in range(6)}, 1),
        ({f"p{i}": 1.0 for i in range(6)}, 5),
        ({"a": 1.0, "b": 1.0}, 2),
    ],
    ids=["sure", "unsure", "a pair has two orders"],
)
def test_auto_votes_in_new_orders_only_on_unsure_answers(weights: dict[str, float], votes: int) -> None:
    ranking, _ = ranked(weights, votes="auto")
    sets = {(one.round, frozenset(one.set)) for one in ranking.trace}
    orders = {(one.round, one.set) for one in ranking.trace}
    assert len(ranking.trace) == len(orders) == votes * len(sets)


def test_auto_is_not_misled_by_a_bias_for_the_first_place_or_by_a_contradiction() -> None:
    weights = {"plain": 1.0, "better": 1.2, "best": 1.5, "worse": 0.9}
    assert ranked(weights, Spelling(weights, first=1.0))[0].order[0] == 0
    assert ranked(weights, Spelling(weights, first=1.0), votes="auto")[0].order[0] == 2
    weights = {"a": 90.0, "b": 6.0, "c": 4.0}
    ranking, _ = ranked(weights, Spelling(weights, free="<answer>[3]</answer>"), votes="auto")
    assert ranking.order[0] == 0
    assert ranking.cost.comparisons > ranking.cost.rounds
    assert ranking.explain(1).comparison is not None


def test_an_unparsed_answer_is_unsure_and_voted_on_unless_strict() -> None:
    answers = iter(["no label"] + ["<answer>[2]</answer>"] * 9)

    class Late(Spelling):
        async def complete(self, request: Request) -> Completion:
            return Completion(next(answers)) if not request.choices else await super().complete(request)

    ranking = Reranker(Late({"a": 1.0, "b": 9.0}), votes="auto").rank("which?", ["a", "b"])
    assert (ranking.cost.unparsed, ranking.order) == (1, (1, 0))
    with pytest.raises(UnparsedError):
        ranked({"a": 1.0, "b": 2.0}, Spelling({"a": 1.0, "b": 2.0}, free="none"), probabilities=True, strict=True)


def test_numbers_that_are_no_log_probabilities_are_left_out() -> None:
    odd = (("1", nan), ("2", -3.0), ("3", inf))
    said = Completion("2]</answer>", logprobs=(TokenLogprob("2", -3.0, odd), TokenLogprob("]", 0.0, (("]", 0.0),))))
    ranking = Reranker(Scripted(lambda _: said), reasoning_tokens=0, probabilities=True).rank("which?", ["a", "b", "c"])
    assert ranking.trace[0].probabilities == (0.0, 1.0, 0.0)
    assert ranking_from_json(json.loads(to_line(ranking_to_json(ranking)))) == ranking


def test_a_backend_without_alternatives_is_an_error_and_nothing_of_it_is_stored(tmp_path: Path) -> None:
    bare = Scripted(lambda _: "<think>x</think> <answer>[1]</answer>", identity="same")
    with pytest.raises(BackendError, match=r"the model 'scripted' gives no token alternatives, .*use votes=3"):
        Reranker(stored(bare, tmp_path / "s"), probabilities=True).rank("which?", ["a", "b"])
    repaired = Spelling({"a": 1.0, "b": 2.0}, free="<answer>[N]</answer>")
    ranking = Reranker(stored(repaired, tmp_path / "s"), probabilities=True).rank("which?", ["a", "b"])
    assert ranking.trace[0].probabilities is not None


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"votes": "auto", "format": "listwise-v1"}, "votes='auto' needs a setwise format"),
        ({"probabilities": True, "format": "listwise-v1"}, "probabilities=True needs a setwise format"),
        ({"votes": "auto", "backend": Scripted(str, can_continue=False)}, "a backend that continues a begun answer"),
    ],
)
def test_what_does_not_go_together_is_refused_when_the_reranker_is_made(settings: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Reranker(**{"backend": Spelling({})} | settings)
