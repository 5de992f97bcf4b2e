"""Rows as the command line names them."""

import pytest

from rankr1_eval.systems import DEFAULT, FREE, KINDS, parse


def test_no_rerank_comes_first_and_the_rest_as_given() -> None:
    assert [system.name for system in parse(["rank-r1,gold", "none", "gold"])] == ["none", "rank-r1", "gold"]


def test_every_kind_can_be_named() -> None:
    names = [f"{kind}:m" if kind == "cross-encoder" else kind for kind in KINDS]
    assert {system.kind for system in parse(names)} == set(KINDS)
    assert set(DEFAULT) | set(FREE) <= set(KINDS)


def test_a_reranker_takes_settings() -> None:
    (system,) = parse(["rank-r1:votes=3+fusion=60+algorithm=ahead+reasoning-tokens=0"])
    assert system.settings == {"votes": 3, "fusion": 60, "algorithm": "ahead", "reasoning_tokens": 0}
    assert system.ordered


def test_a_row_may_ask_the_first_stage_again_between_its_hops() -> None:
    (system,) = parse(["rank-r1:hops=2+retrieve=true"])
    assert system.settings == {"hops": 2, "retrieve": True}
    assert system.file == "rank-r1_hops=2+retrieve=true"


@pytest.mark.parametrize(("name", "kind"), [("dense:BAAI/bge", "dense"), ("cross-encoder:a/b:c", "cross-encoder")])
def test_a_model_may_have_any_name(name: str, kind: str) -> None:
    (system,) = parse([name])
    assert (system.kind, system.model) == (kind, name.partition(":")[2])
    assert "/" not in system.file


@pytest.mark.parametrize(
    ("systems", "told"),
    [
        ([], "at least one of none, random"),
        ([" , "], "at least one"),
        (["nonne"], "system 'nonne' is unknown: must be one of none"),
        (["gold:3"], "gold takes nothing after a colon"),
        (["cross-encoder"], "needs a model"),
        (["rank-r1:votes"], "'votes' is not NAME=VALUE"),
        (["rank-r1:vote=3"], "'vote=3' is not NAME=VALUE with one of"),
        (["rank-r1:k=3"], "is not NAME=VALUE"),
        (["rank-r1:hops=2+retrieve=bm25"], "retrieve must be true, to search again between hops, or false"),
        (["rank-r1:votes=3+votes=5"], "duplicate setting 'votes'"),
        (["dense:a/b,dense:a:b"], "would share a file"),
    ],
)
def test_what_is_wrong_is_told(systems: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse(systems)
