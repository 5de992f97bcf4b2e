"""Hop-aware reranking of the samples of the multi-hop data sets: evidence, answers, and what they cost, as tables.

    python -m bench.study DATA OUT [OPTIONS OF rankr1-eval qa] > bench/study.md

All questions are reranked without a reader, into OUT/DATASET; then some of each set are read, into OUT/read/DATASET.
Systems of one set share what was asked: fusion costs nothing, and a second hop only its own comparisons. Options go to
every run and replace nothing. The same command resumes an interrupted study. With --help: all of it.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.eval_loading import FILES
from rankr1_eval.compare import Pair, ScoredRun, groups, paired, read
from rankr1_eval.report.wording import system_name
from rankr1_eval.run_folder import STALE
from rankr1_eval.types import Difference, Estimate

SETS = {"hotpotqa": "HotpotQA", "2wikimultihopqa": "2WikiMultihopQA", "musique": "MuSiQue"}
PLAIN = "rank-r1"
EVIDENCE = ("R@2", "R@5", "All@5")
ANSWERS = ("EM@5", "F1@5")
HOPS = ("rank-r1:hops=2", "rank-r1:hops=2+retrieve=true")
FUSED = ("rank-r1:fusion=0", "rank-r1:hops=2+fusion=0", "rank-r1:hops=2+retrieve=true+fusion=0")
RERANKERS = (PLAIN, *HOPS, *FUSED)
READ = ("none", PLAIN, *HOPS, "gold", "no-context")
READER = ("backend", "model", "base-url", "server", "api-key-env", "tokens")
OURS = ("--dataset", "--data", "--out", "--store", "--systems", "--k", "--read", "--no-read", "--json")
"""Options of `rankr1-eval qa` that the study sets itself."""
HEAD = """# Several hops

Made by `{command} > bench/study.md`:
BM25 top 20 of the paragraphs of all questions of a sample, k=5, else the defaults of `rankr1-eval qa`. In percent and
points, with 95 % bootstrap intervals over questions. Dense is {dense} over the same 20 candidates. `oracle` puts the
supports among them first: no order of those finds more. Comparisons and tokens are means a question."""


def commands(
    data: Path, out: Path, dense: str, answers: int, reader: Sequence[str], more: Sequence[str]
) -> list[list[str]]:
    """The commands of `rankr1-eval`, in order. `reader` are options of the reader, `more` options of all runs."""
    if not {"--backend", "--base-url"} & {one.partition("=")[0] for one in more}:
        more = ("--option", "max_batch=8", *more)  # the embedded model
    evidence = ",".join(["none", f"dense:{dense}", *RERANKERS])
    made = []
    for name, file in FILES.items():
        asked = ["qa", "--dataset", name, "--data", str(data / file), "--k", "5"]
        made.append([*asked, "--systems", evidence, "--no-read", "--out", str(out / name), *more])
        if answers:
            asked += ["--systems", ",".join(READ), "--questions", str(answers), "--out", str(out / "read" / name)]
            made.append([*asked, "--store", str(out / name / "completions.sqlite"), *more, *reader])
    return made


def line(*cells: object) -> None:
    """A line of a table."""
    print(f"| {' | '.join(map(str, cells))} |")


def head(title: str, *columns: str) -> None:
    """A heading, and the head of a table."""
    print(f"\n## {title}\n")
    line(*columns)
    print("|---" * len(columns) + "|")


def spelled(one: Estimate | Difference, sign: str = "") -> str:
    """A mean or a difference in percent, with its interval."""
    return f"{100 * one.mean:{sign}.1f} ({100 * one.low:{sign}.1f} to {100 * one.high:{sign}.1f})"


def label(system: str) -> str:
    """What a system is called here."""
    return "Dense" if system.startswith("dense") else system_name(system)


def means(runs: dict[str, ScoredRun], measures: Sequence[str], systems: Iterable[str] = ()) -> None:
    """A line for each system of each run: its means and what it cost."""
    for name, run in runs.items():
        for system in systems or run.scores.systems:
            scores = run.scores.systems[system]
            if measures[0] not in scores.estimates:
                continue
            cost = scores.cost
            asked = cost.get("comparisons", 0.0)
            tokens = f"{cost['prompt_tokens']:,.0f} + {cost['completion_tokens']:,.0f}" if asked else ""
            told = [spelled(scores.estimates[measure]) for measure in measures]
            line(SETS[name], label(system), *told, f"{asked:.1f}" if asked else "", tokens)


def moved(runs: dict[str, ScoredRun], against: str, measures: Sequence[str], systems: Sequence[str]) -> None:
    """A line for each of these systems of each run: its paired differences from another."""
    for name, run in runs.items():
        pairs = paired(run, run, against, measures).pairs
        for system in systems:
            line(
                SETS[name],
                system_name(system),
                *(spelled(one.difference, "+") for one in pairs if one.system == system),
            )


def apart(runs: dict[str, ScoredRun], by: str, systems: Sequence[str]) -> None:
    """A line for each group of questions: support recall@5 and how it differs from plain reranking."""
    for name, run in runs.items():
        pairs = paired(run, run, PLAIN, ("R@5",), groups(run, by)).pairs
        found: dict[str, dict[str, Pair]] = {}
        for one in pairs:
            found.setdefault(one.group, {})[one.system] = one
        for group, each in found.items():
            plain = f"{100 * each[systems[0]].first:.1f}"
            changes = [spelled(each[system].difference, "+") for system in systems]
            line(SETS[name], group or "all", each[systems[0]].n, plain, *changes)


def tables(out: Path, title: str, reader: str) -> None:
    """Print all tables."""
    runs = {name: read(out / name) for name in SETS}
    dense = next(system for system in runs["musique"].scores.systems if system.startswith("dense"))
    print(title)
    for run in runs.values():
        if run.stale:
            print(f"\n**{run.name}: {STALE}**")
    print(
        "\n" + ", ".join(f"{SETS[name]} {len(run.scores.systems['none'].each['R@5'])}" for name, run in runs.items()),
        end=" ",
    )
    print("questions.")
    head("Evidence", "data set", "system", *EVIDENCE, "comparisons", "prompt + completion tokens")
    means(runs, EVIDENCE)
    head("Less plain reranking, question by question", "data set", "system", *EVIDENCE)
    moved(runs, PLAIN, EVIDENCE, HOPS)
    head("Less BM25", "data set", "system", *EVIDENCE)
    moved(runs, "none", EVIDENCE, RERANKERS)
    head("Less dense", "data set", "system", *EVIDENCE)
    moved(runs, dense, EVIDENCE, (PLAIN, *HOPS))
    for by in ("type", "hops"):
        head(
            f"By {by}: support recall@5",
            "data set",
            by,
            "questions",
            "plain",
            *(f"{system_name(system)}, less it" for system in HOPS),
        )
        apart(runs, by, HOPS)
    if (out / "read").is_dir():
        runs = {name: read(out / "read" / name) for name in SETS}
        count = max(len(run.scores.systems["none"].each["R@5"]) for run in runs.values())
        print(f"\nAnd read, by {reader or 'the default reader'}, a nested sample of {count} questions of each set.")
    if "EM@5" in runs["musique"].scores.systems["none"].estimates:
        head("Answers", "data set", "system", *ANSWERS, "comparisons", "prompt + completion tokens")
        means(runs, ANSWERS)
        head("Answers, less plain reranking", "data set", "system", *ANSWERS)
        moved(runs, PLAIN, ANSWERS, HOPS)


def main() -> None:
    """Go through the commands, their output on standard error, and print the tables."""
    lines = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser("python -m bench.study", None, __doc__, formatter_class=lines, allow_abbrev=False)
    parser.add_argument("data", type=Path, help="folder with " + ", ".join(FILES.values()))
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--dense", default="sentence-transformers/all-MiniLM-L6-v2", help="embedding model or folder")
    parser.add_argument("--answers", type=int, default=60, help="questions of each set to read (default: 60; 0: none)")
    for name in READER:
        parser.add_argument(f"--reader-{name}", help="as of rankr1-eval qa; for the answers alone")
    found, more = parser.parse_known_args()
    if [str(found.data), str(found.out)] != [str(Path(one)) for one in sys.argv[1:3]]:
        parser.error("DATA and OUT come first, the options after them")
    if ours := [one for one in more if one.partition("=")[0] in OURS]:
        parser.error(f"{ours[0]} is set by the study: leave it out")
    if missing := [file for file in FILES.values() if not (found.data / file).is_file()]:
        parser.error(f"{found.data} has no {missing[0]}: put the data set's official file there")
    chosen = {f"--reader-{name}": getattr(found, f"reader_{name}".replace("-", "_")) for name in READER}
    reader = [part for name, value in chosen.items() if value is not None for part in (name, value)]
    for command in commands(found.data, found.out, found.dense, found.answers, reader, more):
        done = subprocess.run([sys.executable, "-m", "rankr1_eval", *command], stdout=sys.stderr, check=False)
        if done.returncode:
            sys.exit(done.returncode)
    made = shlex.join(["python", "-m", "bench.study", "DATA", "OUT", *reader, *more])
    tables(found.out, HEAD.format(command=made, dense=Path(found.dense).name), found.reader_model)


if __name__ == "__main__":
    main()
