"""What we wrote comes back as it was, or is an error, or counts as damaged: it never comes back as something else."""

from __future__ import annotations

import asyncio
import copy
import io
import json
import logging
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rankr1_rag import Completion, Query, Ranking, Reranker
from rankr1_rag.backends import Request
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import stored
from rankr1_rag.backends.wrappers.cache import from_json, to_json
from rankr1_rag.errors import BackendError, FileError, StoreError
from rankr1_rag.explain import show, write_page
from rankr1_rag.io.checksum import with_checksum
from rankr1_rag.io.collection import parse_object
from rankr1_rag.io.files import located
from rankr1_rag.io.journal import Journal, read_journal
from rankr1_rag.io.jsonl import ranking_from_json, ranking_to_json, read_rankings, to_line
from rankr1_rag.prompt.label_probabilities import shares
from rankr1_rag.train.run_dir import RunDir
from rankr1_rag.types import TokenLogprob
from tests.attacks.conftest import SCALE
from tests.attacks.test_files_of_users import MATERIAL, run, with_out
from tests.cli.conftest import server, shell
from tests.golden import record

__all__ = ["server", "shell"]

MUCH = SCALE if SCALE <= 1 else 4 * SCALE
KEY = b"key of the completion"
COMPLETION = Completion("<think>é</think> [1]", 12, 8, 3, "length", (TokenLogprob("a", -0.5, (("b", float("-inf")),)),))
FIELDS = {"said": "a string"}
RECORDS = {f"q{n}": {"said": f"of {n}", "score": n / 7, "more": [None, True, {"a": n}]} for n in range(3)}
FOUND = {id: {"id": id, **one} for id, one in RECORDS.items()}
STRANGE: list[Any] = [None, True, -1, 0, 7, 2**70, 10**400, -0.5, 1.5, 1e308, "", "x", "-inf", [], {}, [[]], [{}]]
STRANGE += [["x"], [-1], {"a": 1}, "\ud800", "removed"]
ALIEN = [b"\0" * 9, b"\xff\xfe", b"\xed\xa0\x80", b'"\\ud800"', b"NaN", b"1e999", b"9" * 5000, b"[" * 99_999]


def flips(data: bytes, wanted: int) -> Iterator[bytes]:
    """The data with one bit flipped: each bit where that is not many more than wanted, else some of them."""
    bits = range(8 * len(data))
    for bit in bits if len(bits) <= wanted * MUCH else random.Random(7).sample(bits, int(wanted * MUCH)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


def wounds(data: bytes, wanted: int) -> Iterator[bytes]:
    """The data with a part cut out, repeated, zeroed, or replaced by what no JSON has, or much of."""
    dice = random.Random(11)
    for _ in range(int(wanted * MUCH)):
        start, size = dice.randrange(len(data)), dice.randrange(1, 40)
        part = dice.choice([b"", data[start : start + size] * 2, b"\n", b'{"', *ALIEN])
        yield data[:start] + part + data[start + size :]


def strange(line: Any, wanted: int) -> Iterator[Any]:
    """The JSON value with one of its fields removed, or of `wanted` other kinds; of an array the first two elements."""

    def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        for key in value if isinstance(value, dict) else range(min(2, len(value))) if isinstance(value, list) else ():
            yield (*path, key)
            yield from places(value[key], (*path, key))

    dice = random.Random(5)
    for *path, key in list(places(line)):
        for value in dice.sample(STRANGE, wanted if SCALE <= 1 else len(STRANGE)):
            changed = inner = copy.deepcopy(line)
            for one in path:
                inner = inner[one]
            inner[key] = value
            if value == "removed":
                del inner[key]
            yield changed


# ---- each kind of file: what is written, and what is read of it


def journal(path: Path, **options: Any) -> Journal:
    return Journal(path, "test", {"k": 5}, FIELDS, remedy="give another --out", **options)


def write_journal(path: Path) -> list[Any]:
    with journal(path) as records:
        for id, one in RECORDS.items():
            records.add(id, one)
        records.note(gave_up_at=1)
    return list(FOUND.values())


def read_records(path: Path) -> list[Any]:
    with journal(path) as records:
        assert records.notes.get("gave_up_at", 1) == 1
        return [records[id] for id in records]


def write_completion(path: Path, old: bool = False) -> list[Any]:
    text = to_json(COMPLETION, KEY)
    path.write_text(text.rstrip() if old else text)  # without a checksum, or with one
    return [COMPLETION]


def read_completion(path: Path, old: bool = False) -> list[Any]:
    found = located(path, 1, from_json, path.read_bytes(), KEY)
    return [COMPLETION if old and isinstance(found, Completion) else found]


def asked(path: Path, answer: Callable[[str], str] = str, texts: str = "abc") -> tuple[list[str], Any]:
    """The completions of these prompts, from a store or the model, and the backend."""
    backend = stored(Scripted(lambda messages: answer(messages[0]["content"])), path)

    async def job() -> list[str]:
        try:
            return [(await backend.complete(Request([{"role": "user", "content": one}], 8))).text for one in texts]
        finally:
            await backend.close()

    return asyncio.run(job()), backend


def long(text: str) -> str:
    return text * 99


def write_store(path: Path) -> list[Any]:
    first, _ = asked(path, long)
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA journal_mode = DELETE")
    return first


def read_store(path: Path) -> list[Any]:
    for left in path.parent.glob(f"{path.name}-*"):
        left.unlink()
    return asked(path, long)[0]


def ranking(**settings: Any) -> Ranking:
    return record.reranker(k=2, size=3, **settings).rank(Query("q1", "which?"), record.passages(4))


def write_result(path: Path) -> list[Any]:
    path.write_text(to_line(ranking_to_json(first := ranking())))
    return [first]


def write_log(path: Path) -> list[Any]:
    lines = [{"step": step, "loss": step / 3, "held_out": {"sets": 3}} for step in (1, 2)]
    path.write_text("".join(with_checksum(json.dumps(line)) + "\n" for line in lines))
    return lines


def write_scores(path: Path) -> list[Any]:
    pytest.importorskip("rankr1_eval")
    from rankr1_eval.scoring import to_json
    from rankr1_eval.types import Difference, Estimate, Scores, SystemScores

    estimates, difference = {"R@5": Estimate(0.5, 0.25, 0.75, 2)}, {"R@5": Difference(0.0, 0.0, 0.0, 1.0)}
    one = SystemScores("none", {"R@5": {"a": 1.0, "b": 0.0}}, estimates, difference, {"seconds": 0.5}, ("c",))
    scores = Scores({"none": one}, {"type": {"bridge": {"none": estimates}}})
    path.write_text(with_checksum(json.dumps(to_json(scores))) + "\n")
    return [asdict(scores)]


def read_scores(path: Path) -> list[Any]:
    from rankr1_eval.compare import read

    return [asdict(read(path).scores)]


Files = Callable[[Path], list[Any]]
FILES: dict[str, tuple[Files, Files, int, str]] = {
    "journal": (write_journal, read_records, 300, "all, less, refused"),
    "completion": (write_completion, read_completion, 250, "refused"),
    "old completion": (partial(write_completion, old=True), partial(read_completion, old=True), 250, "all, refused"),
    "store": (write_store, read_store, 50, "all, refused"),
    "result": (write_result, lambda path: list(read_rankings(path)), 300, "refused"),
    "log": (write_log, lambda path: RunDir(path.parent).records(), 300, "less"),
    "scores": (write_scores, read_scores, 200, "refused"),
}
"""How a file is written and read, each to what it holds; how many damages, and what must come of some."""


@pytest.mark.parametrize("spoiled", [flips, wounds])
@pytest.mark.parametrize("kind", FILES)
def test_a_file_holds_what_was_written_or_says_what_is_damaged(
    kind: str,
    spoiled: Callable[[bytes, int], Iterator[bytes]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (write, read, n, expected), path, outcomes = FILES[kind], tmp_path / "log.jsonl", set()
    whole = write(path)
    for data in spoiled(path.read_bytes(), n):
        caplog.clear()
        path.write_bytes(data)
        try:
            found = read(path)
        except (FileError, StoreError) as error:
            outcomes.add("refused" if str(path) in str(error) else f"refused without its name: {error}")
            continue
        assert all(one in whole for one in found)
        is_whole = len(found) == len(whole)
        assert is_whole or kind != "journal" or not data.endswith(b"\n") or f"{path}:" in caplog.text
        outcomes.add("all" if is_whole else "less")
    assert {*expected.split(", ")} <= outcomes <= {"all", "less", "refused"}


# ---- journals


def test_what_was_damaged_is_done_again_and_then_the_file_is_whole(tmp_path: Path) -> None:
    write_journal(path := tmp_path / "a.jsonl")
    path.write_bytes(path.read_bytes().replace(b"of 1", b"of 7"))
    with pytest.raises(FileError, match=r"a\.jsonl:3: damaged or unfinished: run the command that makes it again"):
        read_journal(path, "test", FIELDS)
    with journal(path) as records:
        assert list(records) == ["q0", "q2"]
        records.add("q1", RECORDS["q1"])
    assert read_journal(path, "test", FIELDS) == FOUND


def test_a_record_that_is_damaged_after_it_was_found_is_an_error(tmp_path: Path) -> None:
    with journal(path := tmp_path / "a.jsonl") as records:
        for id in RECORDS:
            records.add(id, {"said": "of" * 20_000})
        path.write_bytes(path.read_bytes().replace(b"of", b"if", 1))
        assert records["q2"]["said"].startswith("of")
        with pytest.raises(FileError, match="was damaged meanwhile: run the command again"):
            records["q0"]


def test_a_line_that_another_program_changed_is_damaged_and_a_file_of_an_earlier_version_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_journal(path := tmp_path / "a.jsonl")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], json.dumps(json.loads(lines[1]) | {"said": "else"}), *lines[2:], ""]))
    with journal(path) as records:
        assert list(records) == ["q1", "q2"]
    assert "a.jsonl:2: the line at byte" in caplog.text
    caplog.clear()
    path.write_text("\n".join([*(line.rstrip() for line in lines), ""]))
    with journal(path) as records:
        assert list(records) == ["q0", "q1", "q2"]
    assert not caplog.text


# ---- the store


def test_a_completion_belongs_to_its_key() -> None:
    text = to_json(COMPLETION, KEY).encode()
    assert from_json(text.rstrip(), KEY) == COMPLETION
    with pytest.raises(ValueError, match="checksum"):
        from_json(text, b"another key")


def test_damaged_completions_are_requested_again_counted_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, texts, script = tmp_path / "store.sqlite", "abcdefgh", list[str]()
    asked(path, texts=texts)
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        damages = [b"\xff", b"", None, 7, "[" * 99_999, '{"text": 1}', with_checksum('{"text": "b"}').encode()]
        for row, damage in enumerate(damages, start=1):
            if damage is not None:
                file.execute("UPDATE completions SET completion = ? WHERE rowid = ?", (damage, row))
    found, backend = asked(path, lambda text: script.append(text) or text, texts)  # type: ignore[func-returns-value]
    assert (found, script, backend.damaged, backend.hits) == (list(texts), list("abdefg"), 6, 2)
    assert [one.levelno for one in caplog.records] == [logging.WARNING] * 2
    assert caplog.records[1].getMessage() == f"{path}: 6 damaged completions were requested again"
    assert asked(path, lambda _: str(1 / 0), texts)[0] == list(texts)


# ---- results


@pytest.mark.parametrize("settings", [{"votes": 3}, {"probabilities": True}, {"fusion": 60}, {"trace": False}], ids=str)
def test_a_field_of_a_strange_kind_is_an_error_or_can_be_shown_and_written_again(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    trace, path, n = settings.get("trace", True), tmp_path / "a.jsonl", 0
    line = ranking_to_json(ranking(**{name: value for name, value in settings.items() if name != "trace"}), trace=trace)
    for changed in strange(line, 2):
        path.write_text(json.dumps(changed) + "\n")
        try:
            (found,), n = read_rankings(path), n + 1
        except FileError as error:
            if str(error).startswith(f"{path}:1: "):
                continue
            raise
        show(found, Console(file=io.StringIO()))
        found.log_problems()
        if n % 20 == 0:
            write_page(found, tmp_path / "page.html")
        again = ranking_from_json(parse_object(to_line(ranking_to_json(found, trace=trace)).rstrip("\n")))
        assert (again, again.scores, again.cost) == (found, found.scores, found.cost)
    assert n


def test_the_scores_of_a_run_with_a_field_of_a_strange_kind_are_an_error_or_can_be_read(tmp_path: Path) -> None:
    write_scores(path := tmp_path / "scores.json")
    for changed in strange(json.loads(path.read_text()), 7):
        path.write_text(json.dumps(changed))
        with suppress(FileError):
            read_scores(path)


def test_the_settings_of_a_training_run_that_are_damaged_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("[" * 99_999)
    with pytest.raises(FileError, match="the file is damaged"):
        _ = RunDir(tmp_path).settings


def test_a_result_that_another_program_changed_and_wrote_again_is_read(tmp_path: Path) -> None:
    path, first = tmp_path / "a.jsonl", ranking()
    changed = json.loads(to_line(ranking_to_json(first))) | {"note": "mine"}
    for text in (json.dumps(changed), json.dumps(changed, separators=(",", ":")), json.dumps(changed) + " " * 32):
        path.write_text(text + "\n")
        assert list(read_rankings(path)) == [first]


def test_probabilities_are_at_most_1_and_files_of_before_are_read_where_they_were_not() -> None:
    token = TokenLogprob("1", -4.91, (("1", -4.91), ("1]", -1.48)))
    found = shares(["1]", "2]"], [token])
    assert found is not None
    assert found.settled["1]"] > 1
    backend = Scripted(lambda _: Completion("1]", logprobs=(token,)))
    line = ranking_to_json(Reranker(backend, k=1, probabilities=True, reasoning_tokens=0).rank("q", ["a", "b"]))
    comparison = line["rankr1"]["trace"][0]
    assert comparison["probabilities"] == (1.0, 0.0)
    comparison["probabilities"] = [found.settled["1]"], 0.0]
    assert ranking_from_json(line).trace[0].probabilities == (1.0, 0.0)
    comparison["probabilities"] = [1.1, 0.0]
    with pytest.raises(ValueError, match="numbers from 0 to 1"):
        ranking_from_json(line)


WRONG = [(f"{name}_tokens", one) for name in ("prompt", "cached", "completion") for one in (-1, 2**31, 5.0, True, None)]
WRONG += [("text", None), ("text", b"<answer>[1]</answer>"), ("finish_reason", ["stop"]), ("logprobs", (("a", -0.5),))]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_what_is_no_completion_of_a_backend_is_an_error_before_it_is_written(field: str, value: Any) -> None:
    backend = Scripted(lambda _: replace(COMPLETION, **{field: value}))
    with pytest.raises(BackendError, match=r"(no text|an impossible number of tokens|no TokenLogprob) in Completion\("):
        Reranker(backend, k=1).rank("q", ["a", "b"])
    assert Reranker(backend, k=1, on_failure="first_stage").rank("q", ["a", "b"]).failure


def test_an_id_with_a_lone_surrogate_is_scored_like_any_other() -> None:
    """It ended Python inside pytrec_eval."""
    pytest.importorskip("rankr1_eval")
    from rankr1_eval.measures import ir

    orders, judged = {"q\ud800": ["a", "b\udfff"]}, {"q\ud800": {"b\udfff": 1}, "other": {"a": 1}}
    assert ir.measured(orders, judged, ir.parsed(["RR"])) == {"RR": {"q\ud800": 0.5, "other": 0.0}}


CHANGED: list[tuple[str, dict[str, Any], int]] = [
    ("rerank/rank-r1", {"rankr1": {}}, 2),
    ("rerank/rank-r1", {"scores": [1.0]}, 2),
    ("rerank/rank-r1", {"order": ["x", "y", "z"]}, 2),
    ("rerank/none", {"order": [[]]}, 0),
    ("read/gold", {"prompt_tokens": 10**400}, 0),
    ("read/gold", {"seconds": "1"}, 0),
    ("read/gold", {"own": 1}, 0),
]
"""A journal, what another program wrote into its records, and the exit code: 2 where the record is named."""


def test_a_record_of_a_run_that_another_program_changed_is_done_again_or_named(shell: Any) -> None:
    """Such a program keeps no checksums."""
    pytest.importorskip("rankr1_eval")
    shell.server.judge = lambda _: "<answer>[1]</answer>"
    for name, content in MATERIAL.items():
        (shell.folder / name).write_text(content)
    job = [one for one in with_out("qa", "run") if one != "--no-read"]
    run(shell, *job)
    for file, change, code in CHANGED:
        path = shell.folder / "run" / f"{file}.jsonl"
        whole = path.read_text()
        head, *records = [json.loads(line) for line in whole.splitlines()]
        path.write_text("".join(json.dumps(one) + "\n" for one in [head, *(one | change for one in records)]))
        run(shell, *job, code=code)
        assert code == 0 or f"run/{file}.jsonl: the record 'q' is damaged (" in shell.said
        path.write_text(whole)


@pytest.mark.parametrize("spoiled", [flips, wounds])
def test_embeddings_that_are_kept_come_back_unchanged_or_are_made_again(spoiled: Any, tmp_path: Path) -> None:
    pytest.importorskip("rankr1_eval")
    import numpy

    from rankr1_eval.retrieval.dense import Dense

    made: list[list[str]] = []

    class Model:
        def encode(self, texts: list[str], **_: object) -> Any:
            made.append(texts)
            return numpy.array([[len(text), 0.5] for text in texts], dtype=numpy.float32)

    def kept() -> Any:
        dense = object.__new__(Dense)
        dense.model, dense.cache, dense._loaded = "m", tmp_path, Model()
        return dense._kept(["a", "bc"]).tolist()

    first = kept()
    (path,) = tmp_path.iterdir()
    assert (kept(), len(made)) == (first, 1)
    for data in spoiled(path.read_bytes(), 30):
        path.write_bytes(data)
        assert kept() == first
    assert len(made) > 15
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
