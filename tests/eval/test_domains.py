"""`python -m bench.domains`: the files that it reranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import domains
from bench.training_data import MULTI_HOP, SOURCES
from rankr1_rag.io.trec import read_qrels, read_run


def test_a_drawn_part_of_trec_dl_is_the_same_queries_in_run_and_judgements(shared_data: Path, tmp_path: Path) -> None:
    run, queries, passages, qrels = domains.dl19(shared_data, tmp_path, 5)
    asked = [id for id, _ in read_run(str(run)).items()]
    assert len(asked) == 5
    assert set(asked) == set(read_qrels(str(qrels)))
    assert queries.is_file()
    assert passages.is_file()
    whole = domains.dl19(shared_data, tmp_path, 300)[0]
    assert len(read_run(str(whole))) == 43
    assert {*asked} == domains.drawn(read_run(str(whole)), 5)


def test_the_sources_of_one_hop_are_all_that_are_made_and_have_no_hops() -> None:
    one_hop = {source.name for source in SOURCES if not source.hops} - {"hotpotqa_mudaf"}
    assert set(domains.SOURCES) == one_hop
    assert not {*MULTI_HOP} & one_hop


@pytest.mark.parametrize(("sign", "shown"), [("", "12.3 (1.0 to 20.0)"), ("+", "+12.3 (+1.0 to +20.0)")])
def test_a_figure_has_its_interval(sign: str, shown: str) -> None:
    assert domains.percent({"mean": 0.123, "low": 0.01, "high": 0.2}, sign) == shown
