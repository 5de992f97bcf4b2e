"""Candidates and rankings as JSON lines; further fields of the candidates are kept in the rankings.

    {"query": "how long does a flea live", "passages": ["A flea …", {"id": "d7", "text": "…", "url": "…"}]}

Passages may also be "candidates" (RankLLM, Anserini), "hits", "ctxs" (DPR) or "documents" (Cohere). A line
becomes the same object with the passages reordered and ranked, and all other results under one key:

    {"query": {"id": "1", "text": "how …"}, "passages": [{"id": "d7", …, "url": "…", "rank": 1, "score": 1.0}, …],
     "rankr1": {"version": 1, "order": [1, 0], "k": 1, "cost": {…}, "trace": [{"set": [0, 1], "answer": [1], …}]}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, get_args

from rankr1_rag.io.checksum import with_checksum
from rankr1_rag.io.collection import (
    PASSAGE_ID,
    QUERY_ID,
    Json,
    as_passage,
    as_query,
    field_of,
    first_of,
    id_of,
    member,
    of_kind,
    parse_object,
    within,
)
from rankr1_rag.io.files import FilePath, located, numbered_lines
from rankr1_rag.io.trec import REMEDY, warn_once
from rankr1_rag.scoring import Meaning, Trend
from rankr1_rag.types import (
    Comparison,
    Completion,
    Cost,
    Passage,
    Query,
    Ranking,
    Reason,
    TokenLogprob,
    Truncated,
)

VERSION = 1
LATER = {"reasoning_tokens", "lenient", "clipped_tokens"}
"""Fields that files of version 0.1.0 do not have."""


def positions(record: Mapping[str, Any], name: str, n: int) -> tuple[int, ...]:
    """Positions of n candidates, from a field."""
    positions = member(record, name, "an array")
    for position in positions:
        if of_kind(f'in "{name}", {position!r:.20}', position, "a whole number") not in range(n):
            raise ValueError(f'position {position} in "{name}" is not in 0..{n - 1}')
    return tuple(positions)


def comparison_to_json(comparison: Comparison) -> Json:
    """All its fields by their names, a log-probability of -inf as text; `known`, `lenient`, `scores` only if any."""
    record = asdict(comparison)
    for name in ("known", "lenient", "scores"):
        if not record[name]:
            del record[name]
    logprobs = comparison.completion.logprobs
    if logprobs is not None:
        record["completion"]["logprobs"] = [
            _logprob_to_json(entry.token, entry.logprob) | {"top": [_logprob_to_json(*one) for one in entry.top]}
            for entry in logprobs
        ]
    return record


def trace_from_json(own: Mapping[str, Any], n: int) -> tuple[Comparison, ...]:
    """The comparisons of n candidates under "trace", none where there is none. ValueError says which is bad."""
    trace = []
    for place, record in enumerate(member(own, "trace", "an array") if "trace" in own else ()):
        with within(f"trace[{place}]"):
            trace.append(_comparison_from_json(of_kind("the comparison", record, "an object"), n))
    return tuple(trace)


def _comparison_from_json(record: Mapping[str, Any], n: int) -> Comparison:
    if "reasoning" not in record:
        raise ValueError('no "reasoning": an earlier version of rankr1-rag wrote this trace, rerank again')
    members, answer = positions(record, "set", n), positions(record, "answer", n)
    if not answer or not set(answer) <= set(members):
        raise ValueError(f'"answer" {list(answer)} names none, or others, of the "set" {list(members)}')
    values = {
        "set": members,
        "answer": answer,
        "completion": _completion_from_json(member(record, "completion", "an object")),
        "probabilities": _probabilities(record, "probabilities", len(members)),
        "known": positions(record, "known", n) if "known" in record else (),
        **plain_fields(Comparison, record),
    }
    if "scores" in record:
        own = member(record, "scores", "an array")
        found = _probabilities({"scores": [0 if one is None else one for one in own]}, "scores", len(members)) or ()
        values["scores"] = tuple(None if one is None else score for one, score in zip(own, found, strict=True))
    return Comparison(**values)


def plain_fields(owner: type, record: Mapping[str, Any]) -> Json:
    """The numbers, none negative, texts and booleans of a dataclass, checked; `LATER` ones may be missing."""
    plain = {"int": "a whole number", "float": "a number", "str": "a string", "bool": "a boolean"}
    names = {one.name: plain[str(one.type)] for one in fields(owner) if one.type in plain}
    found = {name: member(record, name, kind) for name, kind in names.items() if name in record or name not in LATER}
    for name, value in found.items():
        if not isinstance(value, str) and not 0 <= value < 2**63:
            raise ValueError(f'"{name}" is {value!r:.40}: it must not be negative, and below 2⁶³')
    return found


def _probabilities(record: Mapping[str, Any], name: str, n: int) -> tuple[float, ...] | None:
    if record.get(name) is None:
        return None
    found = tuple(of_kind("a probability", one, "a number") for one in member(record, name, "an array"))
    found = tuple(1.0 if 1 < one < 1 + 1e-9 else one for one in found)  # rounding errors of earlier versions
    if len(found) != n or not all(0 <= one <= 1 for one in found):
        raise ValueError(f'"{name}" must be {n} numbers from 0 to 1, not {list(found)}')
    return found


def _completion_from_json(record: Mapping[str, Any]) -> Completion:
    logprobs = None if record.get("logprobs") is None else member(record, "logprobs", "an array")
    return Completion(
        **plain_fields(Completion, record),
        logprobs=None if logprobs is None else tuple(map(_logprob_from_json, logprobs)),
    )


def _logprob_to_json(token: str, logprob: float) -> Json:
    """JSON has no number for the log-probability of a forbidden token, -inf."""
    return {"token": token, "logprob": logprob if math.isfinite(logprob) else str(logprob)}


def _logprob_from_json(record: object) -> TokenLogprob:
    entry = of_kind("the entry in logprobs", record, "an object")
    top = [_logprob_from_json(one) for one in (member(entry, "top", "an array") if "top" in entry else ())]
    infinite = entry.get("logprob") in ("-inf", "inf", "nan")
    logprob = float(entry["logprob"] if infinite else member(entry, "logprob", "a number"))
    return TokenLogprob(member(entry, "token", "a string"), logprob, tuple((one.token, one.logprob) for one in top))


QUERIES = ("query", "question")
LISTS = ("passages", "candidates", "hits", "ctxs", "documents")


@dataclass(frozen=True, slots=True)
class Candidates:
    """One line of input: the query with its candidates, and the object `raw` that they were made from.

    `problem` says how their scores contradict their order; "" if they do not.
    """

    query: Query
    passages: tuple[Passage, ...]
    raw: Json
    line: int
    problem: str = ""


def read_candidates(path: FilePath, *, distances: bool = False) -> Iterator[Candidates]:
    """One line a query, read as it is reached; a bad line raises its FileError then.

    The query is a text or an object with a text; its id is in that object or next to it, else it is the line number.
    Passages are texts or objects, best first; one without an id gets its position. With `distances` they are sorted by
    their scores, the least first. One warning is logged if scores contradict the order.
    """
    warned = False
    for number, line in numbered_lines(path):
        parsed = located(path, number, parse_object, line)
        one = located(path, number, candidates_from_json, parsed, number, distances=distances)
        if one.problem and not warned:
            warned = True
            warn_once(f"{path}:{number}: query {one.query.id!r}: {one.problem}")
        yield one


def read_rankings(path: FilePath) -> Iterator[Ranking]:
    """The rankings that `to_line(ranking_to_json(…))` wrote, read as they are reached; so are the FileErrors."""
    for number, line in numbered_lines(path):
        yield located(path, number, ranking_from_json, located(path, number, parse_object, line))


def to_line(record: Mapping[str, Any]) -> str:
    """One line of JSON with its checksum and its end, in ASCII: any string survives, lone surrogates too."""
    return with_checksum(json.dumps(record, allow_nan=False)) + "\n"


def ranking_to_json(ranking: Ranking, raw: Mapping[str, Any] | None = None, *, trace: bool = True) -> Json:
    """The ranking as an object for JSON; `trace=False` leaves the trace out and keeps the cost.

    With `raw`, the `Candidates.raw` it came from, all fields that came in go out, the passages under the name that they
    had; a passage's own `score` and `rank` become `retrieval_score` and `retrieval_rank`, unless it has those.
    """
    raw = raw or {}
    name, query = _list_name(raw), raw.get("query")
    given: list[Any] = [{"title": passage.title, "text": passage.text} for passage in ranking.candidates]
    if name in raw:
        first = len(ranking) - ranking.retrieved
        if len(came := member(raw, name, "an array")) != first:
            raise ValueError(f"`raw` has {len(came)} passages, the ranking {first}: they do not belong together")
        given[:first] = came
    own: Json = {"version": VERSION, "order": list(ranking.order), "k": ranking.k, "failure": ranking.failure}
    own |= {"score_meaning": ranking.score_meaning, "cost": asdict(ranking.cost)}
    if ranking.chosen is not None:
        own["chosen"] = list(ranking.chosen)
    if ranking.retrieved:
        own["retrieved"] = ranking.retrieved
    if ranking.truncated is not None:
        own["truncated"] = asdict(ranking.truncated)
    if trace:
        own["trace"] = [comparison_to_json(comparison) for comparison in ranking.trace]
    same = {name: value for name, value in asdict(ranking.query).items() if value or name != "instruction"}
    if name == "passages":
        raw = {**raw, "query": {**(query if isinstance(query, dict) else {}), **same}}
    else:  # the format of another program
        own["query"] = same
    passages = [_ranked(given[position], ranking, place) for place, position in enumerate(ranking.order)]
    return {**raw, name: passages, "rankr1": own}


def ranking_from_json(record: Mapping[str, Any]) -> Ranking:
    """The ranking that `ranking_to_json` was given. Written without a trace it has none, but still knows its cost.

    ValueError where the object is not one of ours, or contradicts itself.
    """
    passages, own = _passages(record), member(record, "rankr1", "an object")
    if own.get("version") != VERSION:
        raise ValueError(f'"rankr1" is of version {own.get("version")!r}, this package reads {VERSION}: update it')
    order = positions(own, "order", len(passages))
    if sorted(order) != list(range(len(passages))):
        raise ValueError(f'"order" must name each of the {len(passages)} passages once, not {list(order)}')
    cost, n = Cost(**plain_fields(Cost, member(own, "cost", "an object"))), len(passages)
    ranking = Ranking(
        query=as_query(member(own if "query" in own else record, "query", "an object")),
        candidates=tuple(passages[place] for place in sorted(range(len(order)), key=order.__getitem__)),
        order=order,
        k=member(own, "k", "a whole number"),
        trace=trace_from_json(own, n),
        clipped=cost.clipped,
        clipped_tokens=cost.clipped_tokens,
        seconds=cost.seconds,
        failure=None if own.get("failure") is None else member(own, "failure", "a string"),
        chosen=positions(own, "chosen", n) if "chosen" in own else None,
        retrieved=member(own, "retrieved", "a whole number") if "retrieved" in own else 0,
        truncated=_truncated(member(own, "truncated", "an object"), n) if "truncated" in own else None,
    )
    if not 0 <= ranking.retrieved <= len(passages):
        raise ValueError(f'"retrieved" must be 0..{len(passages)}, not {ranking.retrieved}')
    if not own.get("trace"):
        vars(ranking)["cost"] = cost  # where its cached_property looks first
        given = [of_kind("the passage", one, "an object") for one in record[_list_name(record)]]
        scores = tuple(float(member(one, "score", "a number")) for one in given)
        if not all(1 >= one > other for one, other in pairwise((*scores, 0.0))):
            raise ValueError('the "score" of the passages must fall, from 1 at most, and exceed 0')
        vars(ranking)["scores"] = scores
        if (meaning := own.get("score_meaning", "ordinal")) not in get_args(Meaning):  # the only one of version 0.1.0
            raise ValueError(f'"score_meaning" is {meaning!r:.40}: one of {", ".join(get_args(Meaning))} is needed')
        vars(ranking)["score_meaning"] = meaning
    return ranking


def _truncated(record: Mapping[str, Any], n: int) -> Truncated:
    sets = [positions({"unanswered": one}, "unanswered", n) for one in member(record, "unanswered", "an array")]
    if (reason := member(record, "reason", "a string")) not in (reasons := get_args(Reason)):
        raise ValueError(f'"reason" is {reason!r:.40}: one of {", ".join(reasons)} is needed')
    return Truncated(reason, unanswered=tuple(sets), **plain_fields(Truncated, record))


def candidates_from_json(raw: Json, number: int, *, distances: bool = False) -> Candidates:
    """The candidates that a line holds; `number` is the line's, the id of a query that has none."""
    query = as_query(field_of(raw, QUERIES, "a string or an object"), id_of(raw, QUERY_ID, str(number)))
    if not query.text.strip():
        raise ValueError(f"the query {query.id!r} is empty: pass the question's text")
    name, problem = _list_name(raw), ""
    scores = [_score(one, distances) for one in field_of(raw, LISTS, "an array")]
    if "rankr1" not in raw and None not in scores:  # else reranked by this package, whose scores are no distances
        if distances:
            places = sorted(range(len(scores)), key=lambda place: scores[place] or 0.0)
            raw = raw | {name: [raw[name][place] for place in places]}
        else:
            trend = Trend()
            for place, score in enumerate(scores):
                trend.add(score or 0.0, place)
            problem = trend.contradiction()
    passages = _passages(raw)
    return Candidates(query, passages, raw, number, problem and f"{problem}; their order is kept: {REMEDY[0]}")


def _list_name(record: Mapping[str, Any]) -> str:
    """The field of the passages."""
    return first_of(record, LISTS) or "passages"


def _score(passage: object, distances: bool) -> float | None:
    """The first-stage score of a passage, which some files have as text, or its distance."""
    if not isinstance(passage, dict):
        return None
    try:
        return float(passage["distance" if distances and passage.get("score") is None else "score"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _passages(record: Mapping[str, Any]) -> tuple[Passage, ...]:
    passages = []
    for position, given in enumerate(field_of(record, LISTS, "an array")):
        with within(f"{_list_name(record)}[{position}]"):
            passages.append(as_passage(given, str(position)))
    return tuple(passages)


def _ranked(given: str | Json, ranking: Ranking, place: int) -> Json:
    passage = {"text": given} if isinstance(given, str) else dict(given)
    if all(passage.get(name) is None for name in PASSAGE_ID):
        passage = {"id": ranking.passages[place].id} | {key: value for key, value in passage.items() if key != "id"}
    for name in ("rank", "score"):
        if name in passage:
            passage.setdefault(f"retrieval_{name}", passage[name])
    return passage | {"rank": place + 1, "score": ranking.scores[place]}
