"""The sentences and numbers that describe a ranking, for terminal and page alike; all are clean and on one line."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rankr1_rag.types import Comparison, Cost, Explanation, Ranking

RETRIEVED = "retrieved between hops"
MOSTLY_FORCED = 0.8
"""The share of forced answers from which on the reasoning is doubtful."""
SCORE_MEANINGS = {
    "ordinal": "A rank says only that a passage comes before the next: there is no score of relevance behind it.",
    "votes": "A score is the share of votes a passage had where it last won: not its relevance by itself.",
    "score": "A score is the model's own for the passage, the mean of its answers: not a probability of relevance.",
    "probability": "A score is the probability of a passage's label where it last won: not its relevance by itself.",
}
"""The meaning of scores, by `Ranking.score_meaning`."""


@dataclass(frozen=True, slots=True)
class Place:
    """One candidate at its rank; `retrieved` between hops, it has no first-stage rank."""

    why: Explanation
    name: str
    retrieved: bool = False

    @property
    def first(self) -> int:
        """Its first-stage rank, from 1; those retrieved later continue the count."""
        return self.why.position + 1

    @property
    def moved(self) -> str:
        """↑3, ↓2, =, or "new"."""
        gained = self.first - self.why.rank
        return "new" if self.retrieved else f"↑{gained}" if gained > 0 else f"↓{-gained}" if gained else "="

    @property
    def origin(self) -> str:
        """Where it comes from, in words."""
        return RETRIEVED if self.retrieved else f"first-stage rank {self.first}"

    @property
    def record(self) -> str:
        """How often it was chosen and seen, or its own score; "" if it was never seen."""
        if self.why.score is not None:
            return f"score {self.why.score:.2f}"
        if self.why.comparison is not None and self.why.comparison.scores:
            return "no score"
        seen = self.why.won + self.why.lost
        return f"chosen {self.why.won} of {seen} times" if seen else ""


@dataclass(frozen=True, slots=True)
class NumberedComparison:
    """One comparison with its number in the trace, from 1."""

    number: int
    comparison: Comparison

    @property
    def chosen(self) -> int:
        """The position that won: the model's choice or, if its answer could not be parsed, the retriever's best."""
        return self.comparison.answer[0]

    @property
    def flags(self) -> list[str]:
        """Whatever is unusual about it."""
        flags = {
            "unparsed: trusted the retriever": not self.comparison.parsed,
            "forced": self.comparison.forced,
            "in another form": self.comparison.lenient,
            "cut off": self.comparison.completion.finish_reason == "length",
            f"sample {self.comparison.sample + 1}": self.comparison.sample > 0,
        }
        return [flag for flag, holds in flags.items() if holds]

    @property
    def tokens(self) -> str:
        """Its cost in tokens."""
        cost = self.comparison.completion
        cached = f" ({cost.cached_tokens:,} cached)" if cost.cached_tokens else ""
        return f"{cost.prompt_tokens:,} prompt tokens{cached} + {cost.completion_tokens:,} completion tokens"

    @property
    def odds(self) -> str:
        """The three most probable labels with their probabilities; "" if there are none."""
        best = sorted(enumerate(self.comparison.probabilities or (), start=1), key=lambda pair: -pair[1])[:3]
        return ", ".join(f"[{label}] {probability:.2f}" for label, probability in best)

    @property
    def listing(self) -> str:
        """The labels best first, if the answer orders more than one passage or scores them; else ""."""
        labels = {position: label for label, position in enumerate(self.comparison.set, start=1)}
        if self.comparison.scores:
            scores = dict(zip(self.comparison.set, self.comparison.scores, strict=True))
            return ", ".join(
                [f"[{labels[one]}] {own:.2f}" for one in self.comparison.answer if (own := scores[one]) is not None]
            )
        named = [f"[{labels[position]}]" for position in self.comparison.answer if position in labels]
        return " > ".join(named) if len(named) > 1 else ""

    @property
    def transcript(self) -> str:
        """All that the model wrote; reasoning that the server split off comes first."""
        reasoning, text = self.comparison.reasoning, self.comparison.completion.text
        return text if reasoning.strip() in text else f"{reasoning}\n\n{text}"


def name(ranking: Ranking, position: int) -> str:
    """A name for a candidate: its title, else the start of its text, else its id."""
    passage = ranking.candidates[position]
    named = start(passage.title, 80) or start(passage.text, 60).rstrip(".") or line(passage.id)
    return named or f"(empty passage, {position + 1})"


def is_retrieved(ranking: Ranking, position: int) -> bool:
    """Whether a candidate was retrieved between hops, not by the first stage."""
    return position >= len(ranking) - ranking.retrieved


def place(ranking: Ranking, rank: int) -> Place:
    """The candidate at this rank, from 1."""
    why = ranking.explain(rank)
    return Place(why, name(ranking, why.position), is_retrieved(ranking, why.position))


def places(ranking: Ranking) -> list[Place]:
    """Every candidate once, best first."""
    return [place(ranking, rank) for rank in range(1, len(ranking) + 1)]


def origin(ranking: Ranking, position: int) -> str:
    """Where a candidate comes from, in words."""
    return RETRIEVED if is_retrieved(ranking, position) else f"first-stage rank {position + 1}"


def rounds(ranking: Ranking) -> dict[int, list[NumberedComparison]]:
    """Round, counted from 1 → its comparisons in the order asked."""
    rounds: dict[int, list[NumberedComparison]] = {}
    for number, comparison in enumerate(ranking.trace, start=1):
        rounds.setdefault(comparison.round + 1, []).append(NumberedComparison(number, comparison))
    return dict(sorted(rounds.items()))


def known(ranking: Ranking, comparison: Comparison) -> str:
    """The passages that the comparison showed as known: "A; B", or "" for none."""
    return "; ".join(name(ranking, position) for position in comparison.known)


def round_costs(ranking: Ranking) -> dict[str, Cost]:
    """Name of the round → its cost, without seconds: only the whole ranking was timed."""
    untimed = replace(ranking, clipped=0, clipped_tokens=0, seconds=0.0, truncated=None)
    return {
        f"round {number}": replace(untimed, trace=tuple(asked.comparison for asked in members)).cost
        for number, members in rounds(ranking).items()
    }


def choices(ranking: Ranking) -> dict[int, str]:
    """With fusion, by position the rank of a candidate in the model's own order, in words; else {}."""
    if ranking.chosen is None or ranking.failure is not None:
        return {}
    n = len(ranking.selected)
    own = {position: f"the model's choice {rank} of {n}" for rank, position in enumerate(ranking.selected, start=1)}
    return {position: own.get(position, "not chosen by the model") for position in ranking.order}


def verdict(ranking: Ranking, why: Explanation) -> str:
    """Why a passage has its rank, in one sentence."""
    comparison = why.comparison
    if why.failure is not None:
        return "Keeps its first-stage rank, because the model failed."
    if comparison is None:
        return "The model never saw it, and did not need to." if why.selected else "The model never saw it."
    when = f"round {comparison.round + 1}"
    if comparison.scores:
        context = known(ranking, comparison)
        how = "No score" if why.score is None else f"Scored {why.score:.2f}"
        return f"{how} in {when}{context and f', known already: {context}'}."
    if comparison.answer[0] != why.position:
        how = "was chosen" if comparison.parsed else "won because the retriever was trusted"
        return f"Last seen in {when}, where {name(ranking, comparison.answer[0])} {how}."
    if not comparison.parsed:
        return f"The answer in {when} could not be parsed, so the retriever was trusted: it had this one first."
    context = known(ranking, comparison)
    return (
        f"Chosen from {counted(len(comparison.set), 'passage')} in {when}{context and f', known already: {context}'}."
    )


def lede(ranking: Ranking) -> str:
    """The result in two sentences, or three if the order is a fusion."""
    if not ranking.order:
        return "There were no candidates, so there is nothing to rank."
    if ranking.failure is not None:
        return f"The model failed, so there is no reranking: {counted(len(ranking), 'candidate')} in first-stage order."
    early = ranking.truncated
    if not ranking.trace and early is not None:
        return f"It ended before a comparison was complete: {counted(len(ranking), 'candidate')} in first-stage order."
    if not ranking.trace:
        later = f", then {ranking.retrieved:,} {RETRIEVED}" if ranking.retrieved else ""
        number = counted(len(ranking) - ranking.retrieved, "candidate")
        return f"No comparison was needed: {number} in first-stage order{later}."
    seen = len({position for comparison in ranking.trace for position in comparison.set})
    top = ranking.order[0]
    came = f"up from first-stage rank {top + 1}" if top else "as in the first stage"
    fused = ""
    if ranking.chosen:
        own = ranking.chosen[0]
        alone = f": by itself the model has {name(ranking, own)} first" if own != top else ""
        fused = f" The model's order is fused with the retriever's{alone}."
    return (
        f"The model saw {seen:,} of {counted(len(ranking), 'candidate')} in "
        f"{counted(len(ranking.trace), 'comparison')} and selected {min(ranking.k, len(ranking)):,}"
        f"{'' if early is None else f' before it ended, {early.selected:,} of them for good'}. "
        f"First comes {name(ranking, top)}, {RETRIEVED if is_retrieved(ranking, top) else came}.{fused}"
    )


def warnings(ranking: Ranking) -> list[str]:
    """Reasons to doubt the ranking, gravest first."""
    cost = ranking.cost
    asked = counted(cost.comparisons, "comparison")
    cut = sum(comparison.completion.finish_reason == "length" for comparison in ranking.trace)
    sentences = {
        f"The backend failed: {line(ranking.failure or '')}": ranking.failure is not None,
        f"The ranking {ranking.truncated}. The rest is the best order by what was answered until then.": (
            ranking.truncated is not None
        ),
        f"{cost.unparsed:,} of {asked} gave no answer that could be parsed. There the retriever was trusted: "
        "its best passage of the set won, not the model's choice.": cost.unparsed > 0,
        f"{cost.forced:,} of {asked} needed a forced answer: the model gave none by itself, so its reasoning may not "
        "explain the choice.": cost.forced >= max(2, MOSTLY_FORCED * cost.comparisons),
        f"{cut:,} of {asked} ended at the token limit.": cut > 0,
        f"{cost.lenient:,} of {asked} answered in another form, which named one passage.": cost.lenient > 0,
        f"{counted(cost.clipped, 'text')} had to be clipped to fit the context"
        f"{f', by {cost.clipped_tokens:,} tokens' if cost.clipped_tokens else ''}.": cost.clipped > 0,
    }
    return [sentence for sentence, holds in sentences.items() if holds]


_REPLACEMENT = 0xFFFD


_HOSTILE = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"},  # C0 as its picture: ESC becomes ␛
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), _REPLACEMENT),  # C1: 0x9B alone starts an escape sequence
    **dict.fromkeys(range(0x202A, 0x202F), _REPLACEMENT),  # bidirectional embeddings and overrides
    **dict.fromkeys(range(0x2066, 0x206A), _REPLACEMENT),  # bidirectional isolates
    **dict.fromkeys(range(0xD800, 0xE000), _REPLACEMENT),  # lone surrogates: not UTF-8
    0x2028: ord("\n"),
    0x2029: ord("\n"),
}


def clean(text: str) -> str:
    """The text with everything that could steer a terminal or turn the reading direction made visible.

    Newlines and tabs stay; control characters become their pictures (ESC is ␛); C1, bidirectional controls and lone
    surrogates become U+FFFD. Cleaning twice changes nothing.
    """
    return text.replace("\r\n", "\n").translate(_HOSTILE)


def line(text: str) -> str:
    """The text, clean and on one line."""
    return " ".join(clean(text).split())


def start(text: str, length: int) -> str:
    """The beginning of the text on one line, at most `length` characters, cut between words where that costs little."""
    whole = line(text)
    if len(whole) <= length:
        return whole
    cut = whole[: length - 1]
    space = cut.rfind(" ")
    return (cut[:space] if space > length // 2 else cut).rstrip(" .,;:") + "…"


def counted(number: int, noun: str) -> str:
    """`counted(1, "round")` is "1 round", `counted(2000, "round")` is "2,000 rounds"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
