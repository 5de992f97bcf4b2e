"""Systems as the command line names them."""

from typing import Any

import pytest

from rankr1_eval.systems import DEFAULT, FREE, KINDS, parse


def test_no_rerank_comes_first_and_the_rest_in_order() -> None:
    assert [system.name for system in parse(["rank-r1,gold", "none", "gold"])] == ["none", "rank-r1", "gold"]


def test_every_kind_can_be_named() -> None:
    names = [f"{kind}:m" if kind == "cross-encoder" else kind for kind in KINDS]
    assert {system.kind for system in parse(names)} == set(KINDS)
    assert set(DEFAULT) | set(FREE) <= set(KINDS)


@pytest.mark.parametrize(
    ("name", "model", "settings", "file"),
    [
        (
            "rank-r1:votes=3+fusion=60+algorithm=ahead+reasoning-tokens=0",
            "",
            {"votes": 3, "fusion": 60, "algorithm": "ahead", "reasoning_tokens": 0},
            "rank-r1_votes=3+fusion=60+algorithm=ahead+reasoning-tokens=0",
        ),
        ("rank-r1:hops=2+retrieve=true", "", {"hops": 2, "retrieve": True}, "rank-r1_hops=2+retrieve=true"),
        ("dense:BAAI/bge", "BAAI/bge", {}, "dense_BAAI_bge"),
        ("cross-encoder:a/b:c", "a/b:c", {}, "cross-encoder_a_b_c"),
    ],
)
def test_a_system_takes_settings_or_a_model(name: str, model: str, settings: dict[str, Any], file: str) -> None:
    (system,) = parse([name])
    assert (system.kind, system.model) == (name.partition(":")[0], model)
    assert (system.settings, system.file, system.ordered) == (settings, file, True)


@pytest.mark.parametrize(
    ("systems", "told"),
    [
        ("", "at least one of none, random"),
        (" , ", "at least one"),
        ("nonne", "system 'nonne' is unknown: must be one of none"),
        ("gold:3", "gold takes nothing after a colon"),
        ("cross-encoder", "needs a model"),
        ("rank-r1:votes", "'votes' is not NAME=VALUE"),
        ("rank-r1:vote=3", "'vote=3' is not NAME=VALUE with one of"),
        ("rank-r1:k=3", "is not NAME=VALUE"),
        ("rank-r1:hops=2+retrieve=bm25", "retrieve must be true, to search again between hops, or false"),
        ("rank-r1:votes=3+votes=5", "duplicate setting 'votes'"),
        ("dense:a/b,dense:a:b", "would share a file"),
    ],
)
def test_a_wrong_system_is_an_error_that_names_it(systems: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse([systems])
