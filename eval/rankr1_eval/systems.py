"""The systems of an evaluation by name, as `none` or `rank-r1:votes=3+fusion=60`, and the orders of baselines.

docs/evaluation.md has the table. A new one: a name in `Kind`, its order in `Evaluation`, a line in that table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, cast, get_args

from rankr1_eval.retrieval.dense import Dense, check_library, load_model, shown
from rankr1_rag.connect import RERANKING
from rankr1_rag.types import Passage, Query

Kind = Literal["none", "random", "oracle", "dense", "cross-encoder", "rank-r1", "gold", "no-context"]
KINDS: tuple[str, ...] = get_args(Kind)
UNORDERED: tuple[str, ...] = ("gold", "no-context")
"""Systems without an order: read as they are, whatever k."""
DEFAULT = ("none", "gold", "rank-r1")
FREE: tuple[str, ...] = ("none", "oracle", "random")
"""Systems whose order needs no model: the report always has them."""

Order = tuple[int, ...]
Reorder = Callable[[Query, Sequence[Passage]], Order]
"""Candidates to their positions, best first."""


@dataclass(frozen=True)
class System:
    """One system: `model` of dense and cross-encoder ("" is the default), `settings` of the reranker."""

    name: str
    kind: Kind
    model: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ordered(self) -> bool:
        """Whether it orders the candidates."""
        return self.kind not in UNORDERED

    @property
    def file(self) -> str:
        """Its name in file names."""
        return file_name(self.name)


def file_name(system: str) -> str:
    """The name of a system as a file's."""
    return re.sub(r"[^A-Za-z0-9._=+-]", "_", system)


def parse(systems: Iterable[str]) -> tuple[System, ...]:
    """The systems, "none" first; each may be a comma-separated list. ValueError for one that is unknown or wrong."""
    names = [name.strip() for one in systems for name in one.split(",") if name.strip()]
    if not names:
        raise ValueError(f"systems: at least one of {', '.join(KINDS)} is needed")
    found = {system.name: system for system in map(parse_system, names)}
    if len({system.file for system in found.values()}) < len(found):
        raise ValueError(f"systems: two of {', '.join(found)} would share a file: leave one out")
    return tuple(sorted(found.values(), key=lambda system: system.kind != "none"))


def parse_system(name: str) -> System:
    """One system. ValueError for one that is unknown or wrong."""
    kind, _, rest = name.partition(":")
    if kind not in KINDS:
        raise ValueError(f"system {name!r} is unknown: must be one of {', '.join(KINDS)}")
    known = cast(Kind, kind)
    if kind in ("dense", "cross-encoder"):
        if kind == "cross-encoder" and not rest:
            example = "cross-encoder:cross-encoder/ms-marco-MiniLM-L6-v2"
            raise ValueError(f"system {name!r} needs a model: {example} for example")
        return System(name, known, rest)
    if rest and kind != "rank-r1":
        raise ValueError(f"system {name!r}: {kind} takes nothing after a colon")
    settings: dict[str, Any] = {}
    for one in filter(None, rest.split("+")):
        setting, is_there, text = one.partition("=")
        setting = setting.strip().replace("-", "_")
        if not is_there or setting not in RERANKING - {"k"}:
            names = ", ".join(sorted(RERANKING - {"k"}))
            raise ValueError(f"system {name!r}: {one!r} is not NAME=VALUE with one of {names}")
        if setting in settings:
            raise ValueError(f"system {name!r}: duplicate setting {setting!r}")
        try:
            settings[setting] = json.loads(text)
        except (ValueError, RecursionError):
            settings[setting] = text
        if setting == "retrieve" and not isinstance(settings[setting], bool):
            raise ValueError(f"system {name!r}: retrieve must be true, to search again between hops, or false")
    return System(name, known, "", settings)


def oracle(passages: Sequence[Passage], supports: Collection[str]) -> Order:
    """The supports first, then the others as they were."""
    found = [position for position, passage in enumerate(passages) if passage.id in supports]
    return tuple(dict.fromkeys([*found, *range(len(passages))]))


def shuffled(query: Query, passages: Sequence[Passage], seed: int) -> Order:
    """A random order, drawn from the seed and the query's id alone."""
    return tuple(Random(f"{seed}\n{query.id}").sample(range(len(passages)), len(passages)))


def dense(model: str) -> Reorder:
    """By similarity to the query. ImportError without the extra."""
    embedder = Dense(model) if model else Dense()

    def reorder(query: Query, passages: Sequence[Passage]) -> Order:
        places = [Passage(str(position), shown(passage)) for position, passage in enumerate(passages)]
        return tuple(int(scored.id) for scored in embedder.run(places, [query], len(places))[query.id])

    return reorder


def cross_encoder(model: str) -> Reorder:
    """By a cross-encoder of sentence-transformers with one label. ImportError without the extra."""
    check_library()
    loaded: list[Any] = []

    def reorder(query: Query, passages: Sequence[Passage]) -> Order:
        if not loaded:
            loaded.append(load_model("CrossEncoder", model))
        scores = loaded[0].predict([(query.text, shown(passage)) for passage in passages], show_progress_bar=False)
        if scores.ndim != 1:
            raise ValueError(f"cross-encoder {model!r} has {scores.shape[1]} labels: needs a model with one")
        return tuple(sorted(range(len(passages)), key=lambda position: -float(scores[position])))

    return reorder
