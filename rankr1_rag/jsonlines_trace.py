"""The comparisons of a ranking as objects for JSON, and back. Knows one trace; knows nothing of files and lines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rankr1_rag.collection import Json, member, of_kind, within
from rankr1_rag.types import Comparison, Completion, TokenLogprob


def positions(record: Mapping[str, Any], name: str, n: int) -> tuple[int, ...]:
    """Positions of n candidates, from a field."""
    positions = member(record, name, "an array")
    for position in positions:
        if of_kind(f'in "{name}", {position!r:.20}', position, "a whole number") not in range(n):
            raise ValueError(f'position {position} in "{name}" is not in 0..{n - 1}')
    return tuple(positions)


def comparison_to_json(comparison: Comparison) -> Json:
    """All its fields by their names, a log-probability of -inf as text; what is given only where something is."""
    record = asdict(comparison)
    if not comparison.given:
        del record["given"]
    logprobs = comparison.completion.logprobs
    record["completion"]["logprobs"] = None if logprobs is None else [_logprob_to_json(entry) for entry in logprobs]
    return record


def trace_from_json(own: Mapping[str, Any], n: int) -> tuple[Comparison, ...]:
    """The comparisons of n candidates under "trace", none where there is none. ValueError says which is bad."""
    trace = []
    for place, record in enumerate(member(own, "trace", "an array") if "trace" in own else ()):
        with within(f"trace[{place}]"):
            trace.append(_comparison_from_json(of_kind("the comparison", record, "an object"), n))
    return tuple(trace)


def _comparison_from_json(record: Mapping[str, Any], n: int) -> Comparison:
    members, answer = positions(record, "set", n), positions(record, "answer", n)
    if not answer or not set(answer) <= set(members):
        raise ValueError(f'"answer" {list(answer)} names none, or others, of the "set" {list(members)}')
    return Comparison(
        set=members,
        answer=answer,
        completion=_completion_from_json(member(record, "completion", "an object")),
        round=member(record, "round", "a whole number"),
        thought=member(record, "thought", "a string"),
        parsed=member(record, "parsed", "a boolean"),
        forced=member(record, "forced", "a boolean"),
        sample=member(record, "sample", "a whole number"),
        think_tokens=member(record, "think_tokens", "a whole number") if "think_tokens" in record else 0,
        probabilities=_probabilities(record, len(members)),
        given=positions(record, "given", n) if "given" in record else (),
    )


def _probabilities(record: Mapping[str, Any], n: int) -> tuple[float, ...] | None:
    if record.get("probabilities") is None:
        return None
    found = tuple(of_kind("a probability", one, "a number") for one in member(record, "probabilities", "an array"))
    if len(found) != n or not all(0 <= one <= 1 for one in found):
        raise ValueError(f'"probabilities" must be {n} numbers from 0 to 1, not {list(found)}')
    return found


def _completion_from_json(record: Mapping[str, Any]) -> Completion:
    logprobs = None if record.get("logprobs") is None else member(record, "logprobs", "an array")
    return Completion(
        text=member(record, "text", "a string"),
        prompt_tokens=member(record, "prompt_tokens", "a whole number"),
        cached_tokens=member(record, "cached_tokens", "a whole number"),
        completion_tokens=member(record, "completion_tokens", "a whole number"),
        finish_reason=member(record, "finish_reason", "a string"),
        logprobs=None if logprobs is None else tuple(map(_logprob_from_json, logprobs)),
        stored=member(record, "stored", "a boolean"),
    )


def _logprob_to_json(entry: TokenLogprob) -> Json:
    top = [{"token": token, "logprob": _number_to_json(logprob)} for token, logprob in entry.top]
    return {"token": entry.token, "logprob": _number_to_json(entry.logprob), "top": top}


def _logprob_from_json(record: object) -> TokenLogprob:
    entry = of_kind("the entry in logprobs", record, "an object")
    top = [_logprob_from_json(alternative) for alternative in entry.get("top", [])]
    return TokenLogprob(
        token=member(entry, "token", "a string"),
        logprob=_number_from_json(entry),
        top=tuple((alternative.token, alternative.logprob) for alternative in top),
    )


def _number_to_json(number: float) -> float | str:
    """A forbidden token has the log-probability -inf, for which JSON has no number."""
    return number if math.isfinite(number) else str(number)


def _number_from_json(entry: Json) -> float:
    if entry.get("logprob") in ("-inf", "inf", "nan"):
        return float(entry["logprob"])
    return float(member(entry, "logprob", "a number"))
