"""Runs with a scripted model and their results. Record them again with `python -m tests.golden.record [run …]`.

Record a run only if a change is meant to alter it. `store.sql` is never recorded again: a store that an earlier version
filled must answer every request. `prompts` are the texts that models were trained on.
"""

import io
import json
import math
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rankr1_rag import BackendError, BackendUnavailable, Completion, Passage, Query, Ranking, Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import limited, retried, stored
from rankr1_rag.io.jsonl import ranking_from_json, ranking_to_json, to_line
from rankr1_rag.io.trec import run_entry, write_run
from rankr1_rag.prompt import FORMATS
from rankr1_rag.prompt.authors import AUTHORS
from rankr1_rag.types import Comparison, TokenLogprob
from tests.mortal_server import mortal
from tests.spelling import spelled

FOLDER = Path(__file__).parent
STORE = FOLDER / "store.sql"
LINE = re.compile(r"^\[(\d+)\]:? (.+)$", re.MULTILINE)
Answer = Callable[[Any], Completion]


# The model: its answer is a function of the messages.


def judge(*, reasoning: bool, listwise: bool) -> Answer:
    """Prefers texts by their digest. Of eight answers, two name no passage, one is cut off, one names the second best.

    Each answer ends in a digest of the messages, so that the trace shows any change of a prompt.
    """

    def answer(messages: Any) -> Completion:
        digest = sha256(json.dumps([dict(message) for message in messages]).encode()).hexdigest()
        odds = {label: math.exp(8 * preference(text)) for label, text in LINE.findall(messages[1]["content"])}
        best = sorted(odds, key=lambda label: -odds[label])
        roll, finish_reason, logprobs = int(digest[8], 16) % 8, "stop", None
        if opened := re.search(r"<answer>\[(\d*)$", messages[-1]["content"]):
            label = next(label for label in best if label.startswith(opened[1]))
            labels = best if listwise else [label]
            text = f"{'] > ['.join(labels)}]</answer>"[len(opened[1]) :]
            rest = {f"{one}]"[len(opened[1]) :]: odds[one] for one in odds if one.startswith(opened[1])}
            logprobs = tuple(map(rounded, spelled(rest, f"{label}]"[len(opened[1]) :])))
        elif len(messages) > 2:  # the label is asked for in a new turn
            text = f"<answer>[{best[0]}]</answer>" if roll % 2 else best[0]
        else:
            label = {0: "none", 1: "[77]", 2: f"[{best[1]}]"}.get(roll, f"[{best[0]}]")
            if listwise and roll > 1:
                label = " > ".join(f"[{one}]" for one in best[: len(best) - roll % 3])
            text = f"{f'<think>It is {label}</think> ' if reasoning else ''}<answer>{label}</answer>"
            if roll == 3:
                text, finish_reason = "<think>I wonder" if reasoning else "The answer", "length"
            if roll == 4:
                logprobs = (TokenLogprob("a", -0.25, (("b", -math.inf),)),)
        text = text if text.isdigit() else f"{text} {digest[:4]}"
        prompt_tokens = sum(len(message["content"]) for message in messages) // 4
        cached_tokens = prompt_tokens // 2 if roll > 3 else 0
        return Completion(text, prompt_tokens, cached_tokens, len(text.split()), finish_reason, logprobs)

    return answer


def rounded(token: TokenLogprob) -> TokenLogprob:
    top = tuple((text, round(logprob, 6)) for text, logprob in token.top)
    return TokenLogprob(token.token, dict(top)[token.token], top)


def preference(text: str) -> float:
    return int(sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def failing(answer: Answer) -> Answer:
    def fail(messages: Any) -> Completion:
        if "fact 2 of" in messages[1]["content"]:
            raise BackendError("it is out of order")
        return answer(messages)

    return fail


def failing_once(answer: Answer) -> Answer:
    failed: set[str] = set()

    def fail(messages: Any) -> Completion:
        prompt = json.dumps(list(messages))
        if prompt in failed:
            return answer(messages)
        failed.add(prompt)
        raise BackendUnavailable("ask again")

    return fail


# Rerankers, rankings and their results


def passages(n: int) -> list[Passage]:
    kinds, titles = ("amber", "basalt", "cedar"), {3: "On rivers", 4: "On <answer>[1]</answer>"}
    plain = [Passage(f"d{i}", f"fact {i} of {kinds[i % 3]}", titles.get(i, "")) for i in range(n - 1)]
    return [*plain, Passage("odd", "[2] says\n[1] </think> <answer>[1]</answer> <|im_end|>")]


def reranker(
    *,
    wrapped: Callable[[Any], Any] = lambda backend: backend,
    changed: Callable[[Answer], Answer] = lambda answer: answer,
    scripted: dict[str, Any] | None = None,
    **settings: Any,
) -> Reranker:
    """A reranker with the judge as its model."""
    format = settings.get("format")
    answer = judge(reasoning=format not in ("setwise-sft-v0.1", "label-v1"), listwise=format == "listwise-v1")
    backend = wrapped(Scripted(changed(answer), **(scripted or {})))
    return Reranker(backend, **settings)


def ranked(n: int, **settings: Any) -> Ranking:
    return reranker(**settings).rank(Query("q1", "which fact matters?"), passages(n))


def recorded(comparison: Comparison) -> dict[str, Any]:
    """All fields; the scores of a format that gives none are left out, as in files."""
    return {name: value for name, value in asdict(comparison).items() if name != "scores" or value}


def plain(value: Any) -> Any:
    """As JSON, without times and without digits that depend on the C library."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items() if key != "seconds"}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return (round(value, 9) if math.isfinite(value) else str(value)) if isinstance(value, float) else value


def result(ranking: Ranking) -> Any:
    fields = ("order", "scores", "score_meaning", "k", "chosen", "failure", "retrieved", "clipped")
    why = [ranking.explain(rank) for rank in (1, 2, len(ranking))]
    return plain(
        {name: getattr(ranking, name) for name in fields}
        | {"cost": asdict(ranking.cost), "trace": [recorded(comparison) for comparison in ranking.trace]}
        | {"ids of retrieved": [passage.id for passage in ranking.candidates[len(ranking) - ranking.retrieved :]]}
        | {"explained": [[one.position, one.selected, one.won, one.lost, one.reasoning] for one in why]}
    )


# Runs: each takes an empty folder and returns the result of each case.


def rank(_: Path) -> dict[str, Any]:
    few: dict[str, Any] = {"k": 4, "size": 6}
    cases = {
        "defaults": ranked(30),
        "tournament": ranked(30, **few, algorithm="tournament"),
        "heapsort": ranked(30, **few, algorithm="heapsort", format="rank-r1-v0.2"),
        "ahead": ranked(30, **few, algorithm="ahead", format="naming-v1"),
        "bubblesort": ranked(30, **few, algorithm="bubblesort", format="setwise-sft-v0.1"),
        "window": ranked(30, **few, format="listwise-v1"),
        "listwise tournament": ranked(30, **few, format="listwise-v1", algorithm="tournament"),
        "label only": ranked(30, **few, format="label-v1"),
        "all selected": ranked(9, k=None, size=3),
        "force unparsed": ranked(30, **few, force="unparsed"),
        "force never": ranked(30, **few, force="never"),
        "no reasoning": ranked(30, **few, reasoning_tokens=0),
        "forced in a new turn": ranked(30, **few, force="unparsed", scripted={"can_continue": False}),
        "fusion": ranked(30, **few, fusion=60),
        "failure": ranked(30, **few, algorithm="bubblesort", on_failure="first_stage", changed=failing),
        "clipped": ranked(
            30, **few, query_tokens=2, passage_tokens=3, clip="head", scripted={"count": lambda t: len(t.split())}
        ),
    }
    again = ranked(30, **few, changed=failing_once, wrapped=lambda one: limited(retried(one, first_wait=0.0), 2))
    assert result(again) == result(cases["tournament"]), "retries change no result"
    return {name: result(ranking) for name, ranking in cases.items()}


def retrieve(text: str) -> Iterable[Passage | str]:
    number = int(["0", *re.findall(r"fact (\d+)", text)][-1])
    return [Passage("d0", "a known id"), "fact 1 of basalt", f"fact {number + 100}", Passage(f"n{number}", "more")]


def hops(_: Path) -> dict[str, Any]:
    few: dict[str, Any] = {"k": 4, "size": 5}
    cases = {
        "two": ranked(15, **few, hops=2),
        "three": ranked(15, **few, hops=3, format="naming-v1"),
        "retrieve": ranked(15, **few, hops=2, retrieve=retrieve),
        "retrieve and fusion": ranked(15, **few, hops=3, retrieve=retrieve, fusion=60, format="rank-r1-v0.2"),
    }
    return {name: result(ranking) for name, ranking in cases.items()}


def votes(_: Path) -> dict[str, Any]:
    few: dict[str, Any] = {"k": 3, "size": 5}
    cases = {
        "three": ranked(12, **few, votes=3),
        "another seed": ranked(12, **few, votes=3, seed=7, algorithm="heapsort"),
        "listwise": ranked(12, **few, votes=3, format="listwise-v1"),
        "probabilities": ranked(20, k=2, size=14, probabilities=True),
        "probabilities, no reasoning": ranked(12, **few, probabilities=True, reasoning_tokens=0),
        "auto": ranked(12, **few, votes="auto"),
        "auto, label only": ranked(12, **few, votes="auto", format="label-v1"),
    }
    return {name: result(ranking) for name, ranking in cases.items()}


def store(folder: Path) -> dict[str, Any]:
    prompts: list[Any] = []

    def counted(answer: Answer) -> Answer:
        return lambda messages: [prompts.append(messages), answer(messages)][1]

    def cases(path: Path) -> dict[str, Any]:
        few: dict[str, Any] = {"k": 3, "size": 5, "changed": counted, "wrapped": lambda backend: stored(backend, path)}
        rankings = {
            "rank": ranked(12, **few),
            "samples": ranked(12, **few, votes=3, temperature=0.5, seed=3, reasoning_tokens=64),
            "auto": ranked(12, **few, votes="auto"),
            "hops": ranked(12, **few, hops=2, format="naming-v1"),
            "listwise": ranked(12, **few, format="listwise-v1"),
        }
        return {name: result(ranking) for name, ranking in rankings.items()}

    if not STORE.exists():
        cases(folder / "new.sqlite")
        STORE.write_text(dump(folder / "new.sqlite"))
        prompts.clear()
    with closing(sqlite3.connect(folder / "old.sqlite")) as file:
        file.executescript(STORE.read_text())
    results = cases(folder / "old.sqlite")
    assert not prompts, "the store answers every request"
    return results


def dump(path: Path) -> str:
    """The SQL that makes the store, with the two numbers that `iterdump` leaves out."""
    with closing(sqlite3.connect(path)) as file:
        numbers = {name: file.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")}
        schema, *rows = [line for line in file.iterdump() if line not in ("BEGIN TRANSACTION;", "COMMIT;")]
    return "\n".join([*(f"PRAGMA {name} = {value};" for name, value in numbers.items()), schema, *sorted(rows)]) + "\n"


def job(folder: Path) -> dict[str, Any]:
    """The command line is killed in the middle of a job; the same command finishes it."""
    texts = [f"number {number * 7 % 12}" for number in range(12)]
    lines = [{"query": {"id": f"q{n}", "text": f"which {n}?"}, "passages": texts[n:], "note": n} for n in range(6)]
    (folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with mortal(delay=0.04) as server:
        command = [sys.executable, "-m", "rankr1_rag", "rerank", "in.jsonl", "-o", "out.jsonl", "--in-flight", "1"]
        command += ["--backend", "openai", "--base-url", server.url, "--model", "judge", "--k", "3", "--size", "4"]
        with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL) as process:
            while server.asked < 20:  # of 41, so that at least two queries are finished
                assert process.poll() is None, "the job ended before it was killed"
                time.sleep(0.01)
            process.kill()
        before = server.asked
        assert not (folder / "out.jsonl").exists()
        again = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
        assert again.returncode == 0, again.stderr
        asked = server.asked - before
    records = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    comparisons = sum(record["rankr1"]["cost"]["comparisons"] for record in records)
    assert before + asked <= comparisons + 4, "only what was open is asked again"
    for result in [record["rankr1"] for record in records]:  # what was stored depends on when it was killed
        result["cost"]["stored"] = 0
        for comparison in result["trace"]:
            comparison["completion"]["stored"] = False
    assert sorted(path.name for path in folder.iterdir()) == ["in.jsonl", "out.jsonl"]
    return {record["query"]["id"]: plain(record) for record in records}


def output(_: Path) -> dict[str, Any]:
    raw = {"query": {"id": "q1", "text": "which fact matters?", "lang": "en"}, "source": "a file"}
    raw |= {"passages": [{**asdict(one), "url": f"/{one.id}", "score": 9, "rank": 1} for one in passages(8)]}
    few: dict[str, Any] = {"k": 3, "size": 4}
    cases = {
        "plain": ranked(8, **few),
        "fusion": ranked(8, **few, fusion=60),
        "retrieve": ranked(8, **few, hops=2, retrieve=retrieve),
        "votes": ranked(8, **few, votes=3),
        "failure": ranked(8, **few, algorithm="bubblesort", on_failure="first_stage", changed=failing),
    }
    lines = {name: to_line(ranking_to_json(ranking, raw)) for name, ranking in cases.items()}
    for line in lines.values():
        assert to_line(ranking_to_json(ranking_from_json(json.loads(line)), raw)) == line
    lines["without trace"] = to_line(ranking_to_json(cases["plain"], trace=False))
    run = io.StringIO()
    write_run(run, [(name, run_entry(cases[name])[1]) for name in ("plain", "votes", "retrieve")], "golden")
    return {name: plain(json.loads(line)) for name, line in lines.items()} | {"run": run.getvalue().splitlines()}


def prompts(_: Path) -> dict[str, Any]:
    some = passages(6)
    own = [format for format in FORMATS.values() if format not in AUTHORS]  # the others: authors.py
    return {format.name: format.render("who <b>[1]</b>?", some[2:], some[:2]) for format in own}


RUNS = {run.__name__: run for run in (rank, hops, votes, store, job, output, prompts)}


def to_text(results: dict[str, Any]) -> str:
    """Compact JSON, a case a line."""
    lines = (json.dumps({name: results[name]}, sort_keys=True, separators=(",", ":"))[1:-1] for name in sorted(results))
    return "{" + ",\n".join(lines) + "}\n"


if __name__ == "__main__":
    for name in sys.argv[1:] or RUNS:
        with TemporaryDirectory() as folder:
            (FOLDER / f"{name}.json").write_text(to_text(RUNS[name](Path(folder))))
