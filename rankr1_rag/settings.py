"""The settings of a reranker made concrete and checked: what was left open comes from the table of checkpoints.

Knows the names of formats, algorithms and checkpoints; runs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from rankr1_rag.backends import Backend
from rankr1_rag.checkpoints import CHECKPOINTS, Checkpoint
from rankr1_rag.prompt import FORMATS, Format
from rankr1_rag.selection import ALGORITHMS, LISTWISE
from rankr1_rag.types import Force

UNKNOWN = Checkpoint("", "", None, FORMATS["rank-r1-v0.1"], size=20, reasoning_tokens=1024)
"""How a model that is not in the table is asked."""

T = TypeVar("T", bound=str)

BALLOT = "ballot"
"""The one algorithm that is not exact: many sampled answers to one set that holds all candidates."""

Votes = int | Literal["auto"]
Fusion = float | Literal["off"] | None

_FORCES: tuple[Force, ...] = ("truncated", "unparsed", "never")


@dataclass(frozen=True, slots=True)
class Plan:
    """Every open setting of a `Reranker` decided. `probabilities`: those of all labels are asked for."""

    backend: Backend
    format: Format
    algorithm: str
    size: int
    reasoning_tokens: int
    force: Force
    query_tokens: int | None = None
    passage_tokens: int | None = None
    votes: Votes = 1
    seed: int = 0
    probabilities: bool = False
    prefix_order: bool = False
    hops: int = 1
    fusion: float | None = None


def decide(
    backend: Backend | None,
    format: Format | str | None,
    algorithm: str | None,
    size: int | None,
    reasoning_tokens: int | None,
    force: Force | None,
    query_tokens: int | None = None,
    passage_tokens: int | None = None,
    fusion: Fusion = None,
) -> Plan:
    """Fill in what is None and check the rest. ValueError names the value and what it may be."""
    backend = _backend(backend)
    known = CHECKPOINTS.get(backend.model, UNKNOWN)
    format = known.format if format is None else _format(format)
    thinks = reasoning_tokens if reasoning_tokens is not None else known.reasoning_tokens
    if reasoning_tokens is None and format.reasoning and not known.format.reasoning:
        thinks = UNKNOWN.reasoning_tokens
    force = one_of("force", force if force is not None else known.force, _FORCES)
    if thinks == 0 and force == "never" and format.reasoning:
        raise ValueError(
            "reasoning_tokens=0 with force='never' leaves nothing to ask: allow a thought, or force the label"
        )
    return Plan(
        backend=backend,
        format=format,
        algorithm=_algorithm(algorithm, format),
        size=check_within("size", size if size is not None else known.size, 2, 20),
        reasoning_tokens=check_within("reasoning_tokens", thinks, 0),
        force=force,
        query_tokens=_clip("query_tokens", query_tokens, known.query_tokens),
        passage_tokens=_clip("passage_tokens", passage_tokens, known.passage_tokens),
        fusion=_fusion(fusion, known.fusion),
    )


def vote(plan: Plan, votes: Votes, seed: int, temperature: float, probabilities: bool, prefix_order: bool) -> Plan:
    """The plan with how sets are shown and answers counted. ValueError for what does not go together."""
    if votes != "auto" and not (isinstance(votes, int) and not isinstance(votes, bool) and votes >= 1):
        raise ValueError(f"votes={votes!r}: a whole number ≥ 1 is needed, or 'auto'")
    check_within("seed", seed, 0)
    not_negative("temperature", temperature)
    if plan.algorithm == BALLOT and (votes == "auto" or votes < 2 or not temperature):
        raise ValueError(
            f"algorithm={BALLOT!r} counts sampled answers: give votes, 16 for example (not {votes!r}), and a "
            f"temperature above 0, 0.7 for example (not {temperature})"
        )
    if prefix_order and (plan.algorithm == BALLOT or plan.format.kind == "listwise"):
        raise ValueError(
            f"prefix_order needs sets that are asked one after another in a setwise format, not "
            f"{plan.algorithm!r} with {plan.format.name!r}: a listwise answer fills up in shown order"
        )
    asked = "votes='auto'" if votes == "auto" else "probabilities=True"
    if (probabilities or votes == "auto") and not (plan.format.kind == "setwise" and plan.backend.can_continue):
        raise ValueError(
            f"{asked} needs a setwise format and a backend that continues a begun answer (give server= where it is a "
            f"server), not {plan.format.name!r} with {plan.backend.model!r}"
        )
    return replace(plan, votes=votes, seed=seed, probabilities=probabilities, prefix_order=prefix_order)


def check_within(name: str, value: int, least: int, most: int | None = None) -> int:
    """The value, if it is a whole number in least..most; else a ValueError that says so."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        bounds = f"in {least}..{most}" if most is not None else f"≥ {least}"
        raise ValueError(f"{name}={value!r}: a whole number {bounds} is needed")
    return value


def not_negative(name: str, value: float) -> float:
    """The value, if it is a finite number ≥ 0; else a ValueError that says so."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ValueError(f"{name}={value!r}: a number ≥ 0 is needed")
    return value


def one_of(name: str, value: T, values: tuple[T, ...]) -> T:
    """The value, if it is one of these; else a ValueError that lists them."""
    if value not in values:
        raise ValueError(f"{name}={value!r}: one of {', '.join(map(repr, values))} is needed")
    return value


def _backend(backend: Backend | None) -> Backend:
    if backend is None:
        from rankr1_rag.backends.openvino import OpenVINO

        return OpenVINO()
    if isinstance(backend, type) or not callable(getattr(backend, "complete", None)):
        raise TypeError(f"backend={backend!r:.100} is no backend: give one, OpenAI('model', base_url=…) for example")
    return backend


def _format(format: Format | str) -> Format:
    if isinstance(format, str):
        return FORMATS[one_of("format", format, tuple(FORMATS))]
    if not isinstance(format, Format):
        raise TypeError(f"format={format!r:.100}: a Format or one of {', '.join(map(repr, FORMATS))} is needed")
    return format


def _clip(name: str, value: int | None, known: int | None) -> int | None:
    return known if value is None else check_within(name, value, 1)


def _fusion(value: Fusion, known: float | None) -> float | None:
    if value is None or value == "off":
        return known if value is None else None
    if isinstance(value, str):
        raise ValueError(f"fusion={value!r}: a number ≥ 0 is needed, 60 for example, or 'off'")
    return not_negative("fusion", value)


def _algorithm(name: str | None, format: Format) -> str:
    if name is None:
        return "window" if format.kind == "listwise" else "tournament"
    one_of("algorithm", name, (*ALGORITHMS, BALLOT))
    if name in LISTWISE and format.kind != "listwise":
        raise ValueError(f"algorithm={name!r} needs a listwise format like 'listwise-v1', not {format.name!r}")
    return name
