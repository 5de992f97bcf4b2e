"""What the selection algorithms cost with a perfect judge: comparisons, rounds, passages read, and their own time.

Knows positions only: no model is asked. Run `python bench/selection.py [--out bench/selection.md] [--cases 1000]`.
"""

from __future__ import annotations

import argparse
import platform
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from rankr1_rag.selection import ALGORITHMS, LISTWISE, Done, step

NOTES = Path(__file__).with_name("selection-notes.md")


@dataclass(frozen=True)
class Setting:
    """The top k of n at a set size; candidates sorted by true place + N(0, noise), or in no order, or reversed."""

    n: int
    k: int
    size: int
    noise: float | str

    def __str__(self) -> str:
        order = self.noise if isinstance(self.noise, str) else f"true place + N(0, {self.noise:g})"
        return f"Top {self.k} of {self.n}, size {self.size}, {order}"

    def truth(self, seed: int) -> list[int]:
        """True places along the first-stage order."""
        dice, places = random.Random(seed), list(range(self.n))
        if self.noise == "reversed order":
            return places[::-1]
        if isinstance(self.noise, str):
            return dice.sample(places, self.n)
        noise = self.noise
        scores = [place + dice.gauss(0, noise) for place in places]
        return sorted(places, key=scores.__getitem__)


SETTINGS = (
    Setting(100, 10, 20, 25.0),
    Setting(100, 10, 20, 10.0),
    Setting(100, 10, 20, "random order"),
    Setting(100, 10, 20, "reversed order"),
    Setting(100, 10, 10, 25.0),
    Setting(50, 5, 10, 12.5),
    Setting(20, 5, 20, 5.0),
    Setting(200, 20, 20, 50.0),
)


def cost(name: str, setting: Setting, seed: int) -> tuple[int, int, int, float]:
    """Comparisons, rounds, passages read, and the seconds spent in the selection itself."""
    truth = setting.truth(seed)
    comparisons = rounds = passages = 0
    started = time.perf_counter()
    selection = ALGORITHMS[name](setting.n, setting.k, setting.size)
    state = step(selection)
    seconds = time.perf_counter() - started
    while not isinstance(state, Done):
        comparisons, rounds, passages = comparisons + len(state), rounds + 1, passages + sum(map(len, state))
        answers = [tuple(sorted(shown, key=truth.__getitem__)) for shown in state]
        started = time.perf_counter()
        state = step(selection, answers)
        seconds += time.perf_counter() - started
    if [truth[position] for position in state.value] != list(range(setting.k)):
        raise SystemExit(f"{name} is wrong: {setting}, seed {seed}")
    return comparisons, rounds, passages, seconds


def row(name: str, setting: Setting, cases: int) -> str:
    costs = [cost(name, setting, seed) for seed in range(cases)]
    counts = " | ".join(f"{mean(column):.1f} ({max(column)})" for column in list(zip(*costs, strict=True))[:3])
    kind = "listwise" if name in LISTWISE else "winner"
    own = median(seconds / comparisons for comparisons, *_, seconds in costs)
    return f"| {name} | {kind} | {counts} | {1e6 * own:.1f} |"


def table(setting: Setting, cases: int) -> str:
    head = "| algorithm | answers | comparisons | rounds | passages read | µs per comparison |"
    rows = [row(name, setting, cases) for name in ALGORITHMS]
    return "\n".join([f"## {setting}", "", head, "|---|---|---:|---:|---:|---:|", *rows, ""])


def report(cases: int, command: str) -> str:
    machine = f"Python {platform.python_version()}, {platform.machine()}"
    head = f"""# What selection costs

Made by `{command}` ({machine}).

Mean (max) over {cases} seeded cases with a perfect judge. A passage is read each time it is shown. The last column is
the median time of the bare selection, without judge or model, and the only one that depends on the machine. `window`
gets whole orders; the others use the winner alone, for which 15 comparisons are the least for the top 10 of 100.
"""
    return "\n".join([head, *(table(setting, cases) for setting in SETTINGS), NOTES.read_text(encoding="utf-8")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="also write the tables to this Markdown file")
    parser.add_argument("--cases", type=int, default=1000, help="cases a setting (default: %(default)s)")
    options = parser.parse_args()
    text = report(options.cases, " ".join(["python bench/selection.py", *sys.argv[1:]]))
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
