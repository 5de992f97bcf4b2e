"""What there is to tell about a ranking, in plain sentences and numbers, for whoever shows it.

Knows the words of `types`; nothing of terminals or HTML. Every string that leaves here is clean and on one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rankr1_rag.explain.text import counted, line, start
from rankr1_rag.types import Comparison, Cost, Explanation, Ranking

FOUND = "found between two stages"

_MOSTLY = 0.8
"""The share of forced answers from which on a reader should doubt the thoughts."""


@dataclass(frozen=True, slots=True)
class Place:
    """One candidate at its rank; `found` between two stages, it has no first-stage rank."""

    why: Explanation
    name: str
    found: bool = False

    @property
    def first(self) -> int:
        """The rank the retriever gave it, from 1 like every rank; those that were found later count on from there."""
        return self.why.position + 1

    @property
    def moved(self) -> str:
        """↑3, ↓2, =, or "new"."""
        if self.found:
            return "new"
        gained = self.first - self.why.rank
        return f"↑{gained}" if gained > 0 else f"↓{-gained}" if gained else "="

    @property
    def origin(self) -> str:
        """Where it comes from, in words."""
        return FOUND if self.found else f"first-stage rank {self.first}"

    @property
    def record(self) -> str:
        """How often it was chosen and seen; "" where never."""
        seen = self.why.won + self.why.lost
        return f"chosen {self.why.won} of {seen} times" if seen else ""


@dataclass(frozen=True, slots=True)
class Asked:
    """One comparison with its number in the trace, from 1."""

    number: int
    comparison: Comparison

    @property
    def chosen(self) -> int:
        """The position that won, named by the model or, where its answer could not be parsed, by the retriever."""
        return self.comparison.answer[0]

    @property
    def flags(self) -> list[str]:
        """What is not as it should be, or not the usual."""
        found = {
            "unparsed: trusted the retriever": not self.comparison.parsed,
            "forced": self.comparison.forced,
            "cut off": self.comparison.completion.finish_reason == "length",
            f"sample {self.comparison.sample + 1}": self.comparison.sample > 0,
        }
        return [flag for flag, holds in found.items() if holds]

    @property
    def tokens(self) -> str:
        """What it cost."""
        cost = self.comparison.completion
        cached = f" ({cost.cached_tokens:,} cached)" if cost.cached_tokens else ""
        return f"{cost.prompt_tokens:,} prompt tokens{cached} + {cost.completion_tokens:,} completion tokens"

    @property
    def odds(self) -> str:
        """The most probable labels with their probabilities, where these were asked for; else ""."""
        labelled = enumerate(self.comparison.probabilities or (), start=1)
        best = sorted(labelled, key=lambda one: -one[1])[:3]
        return ", ".join(f"[{label}] {probability:.2f}" for label, probability in best)

    @property
    def listing(self) -> str:
        """The labels best first, where the answer orders more than one passage; else ""."""
        labels = {position: label for label, position in enumerate(self.comparison.set, start=1)}
        named = [f"[{labels[position]}]" for position in self.comparison.answer if position in labels]
        return " > ".join(named) if len(named) > 1 else ""

    @property
    def transcript(self) -> str:
        """All that the model wrote; a thought that the server split off comes first."""
        thought, text = self.comparison.reasoning, self.comparison.completion.text
        return text if thought.strip() in text else f"{thought}\n\n{text}"


SCORES = {
    "ordinal": "A rank says only that a passage comes before the next; there is no score of relevance behind it.",
    "votes": "A score is the share of votes a passage had where it last won: not its relevance by itself.",
    "probability": "A score is the probability of a passage's label where it last won: not its relevance by itself.",
}
"""What scores mean, by `Ranking.score_meaning`."""


def name(ranking: Ranking, position: int) -> str:
    """What to call a candidate: its title, else how its text starts, else its id."""
    passage = ranking.candidates[position]
    return start(passage.title, 80) or start(passage.text, 60) or line(passage.id) or f"(empty passage, {position + 1})"


def places(ranking: Ranking) -> list[Place]:
    """Every candidate once, best first."""
    explanations = [ranking.explain(rank) for rank in range(1, len(ranking) + 1)]
    return [Place(why, name(ranking, why.position), found(ranking, why.position)) for why in explanations]


def found(ranking: Ranking, position: int) -> bool:
    """Whether a candidate is none of the first stage's."""
    return position >= len(ranking) - ranking.retrieved


def origin(ranking: Ranking, position: int) -> str:
    """Where a candidate comes from, in words."""
    return FOUND if found(ranking, position) else f"first-stage rank {position + 1}"


def rounds(ranking: Ranking) -> dict[int, list[Asked]]:
    """Round, counted from 1 → its comparisons in the order asked."""
    found: dict[int, list[Asked]] = {}
    for number, comparison in enumerate(ranking.trace, start=1):
        found.setdefault(comparison.round + 1, []).append(Asked(number, comparison))
    return dict(sorted(found.items()))


def known(ranking: Ranking, comparison: Comparison) -> str:
    """What was known already when this was asked: "A; B", or "" for nothing."""
    return "; ".join(name(ranking, position) for position in comparison.known)


def round_costs(ranking: Ranking) -> dict[str, Cost]:
    """Name of the round → its cost, without seconds: only the whole ranking was timed."""
    untimed = replace(ranking, clipped=0, seconds=0.0)
    return {
        f"round {number}": replace(untimed, trace=tuple(asked.comparison for asked in members)).cost
        for number, members in rounds(ranking).items()
    }


def verdict(ranking: Ranking, why: Explanation) -> str:
    """Why a passage stands where it stands, in one sentence."""
    comparison = why.comparison
    if comparison is None:
        return "The model was never shown it, nor needed to be." if why.selected else "The model was never shown it."
    when = f"round {comparison.round + 1}"
    if comparison.answer[0] != why.position:
        how = "was chosen" if comparison.parsed else "won because the retriever was trusted"
        return f"Last seen in {when}, where {name(ranking, comparison.answer[0])} {how}."
    if not comparison.parsed:
        return f"The answer in {when} could not be parsed, so the retriever was trusted: it had this one first."
    beside = known(ranking, comparison)
    return f"Chosen from {counted(len(comparison.set), 'passage')} in {when}{beside and f', known already: {beside}'}."


def lede(ranking: Ranking) -> str:
    """The whole story in two sentences, or three where the order is a fusion."""
    if not ranking.order:
        return "There were no candidates, so there is nothing to rank."
    if ranking.failure is not None:
        return f"There is no reranking here: {counted(len(ranking), 'candidate')} in first-stage order."
    if not ranking.trace:
        later = f", then {ranking.retrieved:,} {FOUND}" if ranking.retrieved else ""
        known = counted(len(ranking) - ranking.retrieved, "candidate")
        return f"No comparison was needed: {known} in first-stage order{later}."
    seen = len({position for comparison in ranking.trace for position in comparison.set})
    asked = counted(len(ranking.trace), "comparison")
    selected = min(ranking.k, len(ranking))
    top = ranking.order[0]
    came = "where the first stage had it"
    if top:
        came = FOUND if found(ranking, top) else f"up from first-stage rank {top + 1}"
    return (
        f"The model saw {seen:,} of {counted(len(ranking), 'candidate')} in {asked} "
        f"and selected {selected:,}. First comes {name(ranking, top)}, {came}.{_fused(ranking)}"
    )


def _fused(ranking: Ranking) -> str:
    """That the order is not the model's alone, where it is not."""
    if not ranking.chosen:
        return ""
    own = ranking.chosen[0]
    alone = f": by itself it has {name(ranking, own)} first" if own != ranking.order[0] else ""
    return f" The model's order is fused with the retriever's{alone}."


def warnings(ranking: Ranking) -> list[str]:
    """What a reader must know before believing the ranking, gravest first."""
    cost = ranking.cost
    asked = counted(cost.comparisons, "comparison")
    cut = sum(comparison.completion.finish_reason == "length" for comparison in ranking.trace)
    found: Mapping[str, bool] = {
        f"The backend failed: {line(ranking.failure or '')}": ranking.failure is not None,
        f"{cost.unparsed:,} of {asked} gave no answer that could be parsed. There the retriever was trusted: "
        "its best passage of the set won, not the model's choice.": cost.unparsed > 0,
        f"{cost.forced:,} of {asked} had to be forced: the model did not come to an answer by itself, "
        "so the thoughts may not be the reasons.": cost.forced >= max(2, _MOSTLY * cost.comparisons),
        f"{cut:,} of {asked} ended at the token limit.": cut > 0,
        f"{counted(cost.clipped, 'text')} had to be clipped to fit the context.": cost.clipped > 0,
    }
    return [sentence for sentence, holds in found.items() if holds]
