"""How much of its prompts a query need not have read again, by the order of the passages in a set. No model is asked.

    python -m bench.prefix [--cases 1000] > bench/prefix.md

Lengths are those of the TREC DL 2019 passages in RANKR1_SHARED_DATA (../shared/data), clipped to 60 words; all else is
simulated.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import log2
from pathlib import Path
from random import Random
from statistics import mean

from bench.ballot import Judge
from bench.selection import Setting
from rankr1_rag.prompt import FORMATS
from rankr1_rag.selection import ALGORITHMS, Answer, Done, Set, step
from rankr1_rag.selection.prefixed import order as prefix_order

DATA = Path(os.environ.get("RANKR1_SHARED_DATA", "../shared/data")) / "trec-dl-2019"
NOTES = Path(__file__).with_name("prefix-notes.md")
WORDS, BLOCK, CHARACTERS, TEMPLATE = 60, 16, 4.2, 8
"""Words of a passage, tokens of a cached block, characters of a token (SmolLM2's, on these), tokens of a role."""

SETTINGS = (Setting(100, 10, 20, 25.0), Setting(20, 5, 20, 5.0))
NAMES = ("tournament", "heapsort", "ahead")
JUDGES = (Judge("perfect", 0.0), Judge("noise 4", 4.0))
PARTIAL = (
    Judge("noise 2", 2.0),
    Judge("2, likes the first", 2.0, bias=0.25),
    Judge("2, likes the last", 2.0, bias=-0.25),
)


@dataclass
class Past:
    """What an order may go by: the sets of earlier rounds as shown, who won; and for comparison only, the truth."""

    truth: Sequence[int]
    dice: Random
    earlier: list[Set] = field(default_factory=list)
    won: set[int] = field(default_factory=set)


Order = Callable[[Set, Past], Set]


def _then(rest: Callable[[set[int], Past], list[int]]) -> Order:
    """The longest beginning of an earlier set, then the rest."""

    def order(shown: Set, past: Past) -> Set:
        start = max((before[: _common(before, shown)] for before in past.earlier), key=len, default=())
        return (*start, *rest(set(shown) - set(start), past))

    def _common(before: Set, shown: Set) -> int:
        return next((place for place, position in enumerate(before) if position not in shown), len(before))

    return order


ORDERS: dict[str, Order] = {
    "first stage (today)": lambda shown, past: shown,
    "random": lambda shown, past: tuple(past.dice.sample(shown, len(shown))),
    "first stage reversed": lambda shown, past: shown[::-1],
    "reversed, past winners last": lambda shown, past: prefix_order(shown, [], past.won),
    "prefix, then first stage": _then(lambda rest, past: sorted(rest)),
    "prefix, then reversed": lambda shown, past: prefix_order(shown, past.earlier),
    "prefix, then reversed, past winners last": lambda shown, past: prefix_order(shown, past.earlier, past.won),
    "(with the truth) prefix, then truly worst first": _then(
        lambda rest, past: sorted(rest, key=lambda p: -past.truth[p])
    ),
}
"""The last but one is `rankr1_rag.selection.prefixed`."""


@dataclass(frozen=True)
class Case:
    """The rounds of one query, as shown, and what was selected, in true places."""

    seed: int
    rounds: list[list[Set]]
    found: list[int]


@cache
def played(setting: Setting, name: str, judge: Judge, order: str, cases: int) -> list[Case]:
    return [play(setting, name, judge, ORDERS[order], seed) for seed in range(cases)]


def play(setting: Setting, name: str, judge: Judge, order: Order, seed: int) -> Case:
    truth, dice = setting.truth(seed), Random(f"noise {seed}")
    belief, past, rounds = [float(place) for place in truth], Past(truth, Random(f"order {seed}")), list[list[Set]]()
    selection = ALGORITHMS[name](setting.n, setting.k, setting.size)
    state = step(selection)
    while not isinstance(state, Done):
        rounds.append([order(shown, past) for shown in state])
        answers: list[Answer] = [judge.answer(shown, belief, False, dice) for shown in rounds[-1]]
        past.earlier += rounds[-1]
        past.won |= {answer[0] for answer in answers}
        state = step(selection, answers)
    return Case(seed, rounds, [truth[position] for position in state.value])


def shared(rounds: list[list[Set]], same_round: bool) -> Iterator[tuple[Set, int]]:
    """Each set, and how many of its leading passages were shown so in an earlier round, or before in its own."""
    before = list[Set]()
    for sets in rounds:
        now = list[Set]()
        for shown in sets:
            known = before + now if same_round else before
            yield shown, max((_alike(shown, other) for other in known), default=0)
            now.append(shown)
        before += now


def _alike(one: Set, other: Set) -> int:
    differ = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))


@cache
def lengths() -> list[tuple[int, list[int]]]:
    """For each query: tokens before the passages, and of each candidate's line."""
    with gzip.open(DATA / "passages.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = {line["docid"]: line["text"] for line in map(json.loads, file)}
    queries = dict(line.split("\t") for line in (DATA / "queries.tsv").read_text(encoding="utf-8").splitlines())
    found = defaultdict[str, list[int]](list)
    for line in (DATA / "run.bm25.top100.trec").read_text(encoding="utf-8").splitlines():
        query, _, passage, *_ = line.split()
        found[query].append(_tokens(" ".join(texts[passage].split()[:WORDS])))
    head = FORMATS["rank-r1-v0.1"]
    before = head.system + head.user.partition("{docs}")[0]
    return [(2 * TEMPLATE + _tokens(before + queries[query]), lines) for query, lines in found.items()]


def _tokens(text: str) -> int:
    return round(len(text) / CHARACTERS)


TAIL = TEMPLATE + _tokens(FORMATS["rank-r1-v0.1"].user.partition("{docs}")[2])


def tokens(case: Case) -> tuple[int, int]:
    """Tokens of all prompts of the query, and how many of them are in no cached block of an earlier round."""
    queries = [lengths_of for lengths_of in lengths() if len(lengths_of[1]) >= 100]
    head, lines = queries[case.seed % len(queries)]
    total = anew = 0
    for number, (shown, alike) in enumerate(shared(case.rounds, same_round=False)):
        prompt = head + sum(lines[position] for position in shown) + TAIL
        known = head + sum(lines[position] for position in shown[:alike]) if number >= len(case.rounds[0]) else 0
        total, anew = total + prompt, anew + prompt - known // BLOCK * BLOCK
    return total, anew


def passages(cases: list[Case], same_round: bool) -> str:
    pairs = [pair for case in cases for pair in shared(case.rounds, same_round)]
    return f"{sum(alike for _, alike in pairs) / sum(len(shown) for shown, _ in pairs):.1%}"


def prefill(cases: list[Case]) -> str:
    total, anew = (mean(column) for column in zip(*map(tokens, cases), strict=True))
    return f"{anew / 1000:.1f} of {total / 1000:.1f} ({1 - anew / total:.0%})"


def ndcg(cases: list[Case], k: int) -> str:
    gains = [[max(0, k - place) / log2(2 + rank) for rank, place in enumerate(case.found)] for case in cases]
    return f"{mean(map(sum, gains)) / sum((k - place) / log2(2 + place) for place in range(k)):.3f}"


def table(setting: Setting, number: int, cell: Callable[[list[Case]], str], judges: Sequence[Judge] = JUDGES) -> str:
    names = NAMES if judges is JUDGES and setting.n > setting.size else NAMES[:1]
    pairs = [(name, judge) for name in names for judge in judges]
    lines = [
        "| order | " + " | ".join(f"{name}, {judge.name}" for name, judge in pairs) + " |",
        "|---|" + "---:|" * len(pairs),
    ]
    for order in ORDERS:
        cells = (cell(played(setting, name, judge, order, number)) for name, judge in pairs)
        lines.append(f"| {order} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def section(setting: Setting, number: int) -> str:
    tables = {
        "Passages read that are in a beginning shown in an earlier round": lambda cases: passages(cases, False),
        "… in an earlier round, or earlier in the same round": lambda cases: passages(cases, True),
        "Thousand prompt tokens to compute for a query, of all its prompt tokens (the share saved)": prefill,
    }
    parts = [f"{title}:\n\n{table(setting, number, cell)}\n" for title, cell in tables.items()]
    quality = table(setting, number, lambda cases: ndcg(cases, setting.k), PARTIAL)
    judged = f"nDCG@{setting.k} of the tournament, gains {setting.k}, … 1, with judges that mind places (see ballot.md)"
    if setting.n <= setting.size:
        del parts[1]
    return "\n".join([f"## {setting}\n", *parts, f"{judged}:\n\n{quality}\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="cases a setting (default: %(default)s)")
    number = parser.parse_args().cases
    head = f"""# What a prefix cache saves, by the order within a set

Made by `python -m bench.prefix > bench/prefix.md`.

Means over {number} seeded cases. A passage is read from the cache only where all passages before it in the prompt are
the same as in an earlier prompt of the query. Tokens: the prompt of `rank-r1-v0.1`, passages of TREC DL 2019 clipped to
{WORDS} words (75 tokens on average), cached in blocks of {BLOCK} and never evicted; text before the passages is
read once a set of the first round and then always cached. Judges: perfect, and Plackett-Luce noise as in ballot.md.
Where all candidates fit in one set the three algorithms ask the same sets, one a round: one column is for all.
"""
    notes = NOTES.read_text(encoding="utf-8")
    print("\n".join([head, *(section(setting, number) for setting in SETTINGS), notes]), end="")


if __name__ == "__main__":
    main()
