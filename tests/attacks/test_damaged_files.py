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
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

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
from rankr1_rag.io.journal import Journal, read_journal
from rankr1_rag.io.jsonl import ranking_from_json, ranking_to_json, read_rankings, to_line
from rankr1_rag.prompt.label_probabilities import shares
from rankr1_rag.train.run_dir import RunDir
from rankr1_rag.types import TokenLogprob
from tests.attacks.conftest import SCALE
from tests.golden import record

KEY = b"key of the completion"
COMPLETION = Completion("<think>é</think> [1]", 12, 8, 3, "length", (TokenLogprob("a", -0.5, (("b", float("-inf")),)),))
FIELDS = {"said": "a string"}
RECORDS = {f"q{n}": {"said": f"of {n}", "score": n / 7, "more": [None, True, {"a": n}]} for n in range(3)}
STRANGE: list[Any] = [None, True, -1, 0, 7, 2**70, 10**400, -0.5, 1.5, 1e308, "", "x", "-inf", [], {}, [[]], [{}]]
T = TypeVar("T")
Spoil = Callable[[bytes, int], Iterator[bytes]]
STRANGE += [["x"], [-1], {"a": 1}, "\ud800"]


def outcome(read: Callable[[], T], refusal: type[Exception]) -> T | str:
    """What is read, or the message of the error that refuses it."""
    try:
        return read()
    except refusal as error:
        return str(error)


def flips(data: bytes, wanted: int) -> Iterator[bytes]:
    """The data with one bit flipped: each bit where that is not many more than wanted, else some of them."""
    bits = range(8 * len(data))
    for bit in bits if len(bits) <= wanted * SCALE else random.Random(7).sample(bits, int(wanted * SCALE)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


def wounds(data: bytes, wanted: int) -> Iterator[bytes]:
    """The data with a part cut out, repeated, zeroed, or replaced by what no JSON has, or much of."""
    dice = random.Random(11)
    alien = [
        b"\0" * 9,
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b'"\\ud800"',
        b"NaN",
        b"1e999",
        b"9" * 5000,
        b"[" * 99_999,
        b"\n",
        b'{"',
    ]
    for _ in range(int(wanted * SCALE)):
        start, size = dice.randrange(len(data)), dice.randrange(1, 40)
        part = dice.choice([b"", data[start : start + size] * 2, *alien])
        yield data[:start] + part + data[start + size :]


def journal(path: Path, **options: Any) -> Journal:
    return Journal(path, "test", {"k": 5}, FIELDS, remedy="give another --out", **options)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A journal with its records and a note."""
    with journal(path := tmp_path / "a.jsonl") as records:
        for id, one in RECORDS.items():
            records.add(id, one)
        records.note(gave_up_at=1)
    return path


@pytest.mark.parametrize("spoiled", [flips, wounds])
def test_a_journal_holds_what_was_written_or_says_what_is_damaged(
    spoiled: Spoil, written: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = written.read_bytes()
    assert whole.count(b"\n") == 5
    kinds = set()

    def read() -> dict[str, Any]:
        with journal(written) as records:
            assert records.notes.get("gave_up_at", 1) == 1
            return {id: records[id] for id in records}

    for data in spoiled(whole, 1_000):
        caplog.clear()
        written.write_bytes(data)
        found = outcome(read, FileError)
        if isinstance(found, str):
            assert str(written) in found
            kinds.add("refused")
        else:
            assert found.items() <= {id: {"id": id, **one} for id, one in RECORDS.items()}.items()
            torn = not data.endswith(b"\n")
            assert found.keys() == RECORDS.keys() or torn or f"{written}:" in caplog.text
            kinds.add(f"{len(found)} records")
    assert kinds >= {"refused", "2 records", "3 records"}


def test_what_was_damaged_is_done_again_and_then_the_file_is_whole(written: Path) -> None:
    written.write_bytes(written.read_bytes().replace(b"of 1", b"of 7"))
    with pytest.raises(FileError, match=r"a\.jsonl:3: damaged or unfinished: run the command that makes it again"):
        read_journal(written, "test", FIELDS)
    with journal(written) as records:
        assert list(records) == ["q0", "q2"]
        records.add("q1", RECORDS["q1"])
    found = read_journal(written, "test", FIELDS)
    assert found == {id: {"id": id, **one} for id, one in RECORDS.items()}


def test_a_record_that_is_damaged_after_it_was_found_is_an_error(tmp_path: Path) -> None:
    with journal(path := tmp_path / "a.jsonl") as records:
        for id in RECORDS:
            records.add(id, {"said": "of" * 20_000})
        path.write_bytes(path.read_bytes().replace(b"of", b"if", 1))
        assert records["q2"]["said"].startswith("of")
        with pytest.raises(FileError, match="was damaged meanwhile: run the command again"):
            records["q0"]


def test_a_line_that_another_program_changed_is_damaged_and_a_file_of_an_earlier_version_is_read(
    written: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = written.read_text().splitlines()
    written.write_text("\n".join([lines[0], json.dumps(json.loads(lines[1]) | {"said": "else"}), *lines[2:], ""]))
    with journal(written) as records:
        assert list(records) == ["q1", "q2"]
    assert "a.jsonl:2: the line at byte" in caplog.text
    caplog.clear()
    written.write_text("\n".join([*(line.rstrip() for line in lines), ""]))
    with journal(written) as records:
        assert list(records) == ["q0", "q1", "q2"]
    assert not caplog.text


# ---- the store


@pytest.mark.parametrize("spoiled", [flips, wounds])
@pytest.mark.parametrize("is_old", [False, True])
def test_a_stored_completion_comes_back_unchanged_or_is_damaged(is_old: bool, spoiled: Spoil) -> None:
    text = to_json(COMPLETION, KEY).encode()
    assert from_json(text, KEY) == COMPLETION
    assert from_json(text.rstrip(), KEY) == COMPLETION
    with pytest.raises(ValueError, match="checksum"):
        from_json(text, b"another key")
    for data in spoiled(text.rstrip() if is_old else text, 3_000):
        try:
            found = from_json(data, KEY)
        except ValueError:
            continue
        assert is_old or found == COMPLETION
        assert isinstance(found, Completion)


def asked(backend: Any, texts: str) -> list[Completion]:
    requests = [Request([{"role": "user", "content": text}], 8) for text in texts]

    async def job() -> list[Completion]:
        try:
            return [await backend.complete(request) for request in requests]
        finally:
            await backend.close()

    return asyncio.run(job())


def test_a_store_with_a_flipped_bit_gives_what_was_stored_or_asks_again_or_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    first = asked(stored(Scripted(lambda messages: messages[0]["content"] * 99), path), "abc")
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA journal_mode = DELETE")
    outcomes = set()
    for data in flips(path.read_bytes(), 120):
        path.write_bytes(data)
        damaged = []

        def read() -> list[Completion]:
            backend = stored(Scripted(lambda messages: messages[0]["content"] * 99), path)
            found = asked(backend, "abc")
            damaged.append(backend.damaged)  # noqa: B023
            return [replace(one, stored=False) for one in found]

        found = outcome(read, StoreError)
        assert str(path) in found if isinstance(found, str) else found == first
        outcomes.add("refused" if isinstance(found, str) else f"{damaged[0]} damaged")
        for left in tmp_path.glob("store.sqlite-*"):
            left.unlink()
    assert outcomes >= {"refused", "0 damaged", "1 damaged"}


def test_damaged_completions_are_requested_again_counted_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, texts = tmp_path / "store.sqlite", "abcdefgh"
    asked(stored(Scripted(lambda messages: messages[0]["content"]), path), texts)
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        damages = [b"\xff", b"", None, 7, "[" * 99_999, '{"text": 1}', with_checksum('{"text": "b"}').encode()]
        for row, damage in enumerate(damages, start=1):
            if damage is not None:
                file.execute("UPDATE completions SET completion = ? WHERE rowid = ?", (damage, row))
    script: list[str] = []
    backend = stored(Scripted(lambda messages: [script.append(messages[0]["content"]), script[-1]][1]), path)
    assert [one.text for one in asked(backend, texts)] == list(texts)
    assert (script, backend.damaged, backend.hits) == (list("abdefg"), 6, 2)
    assert [one.levelno for one in caplog.records] == [logging.WARNING] * 2
    assert caplog.records[1].getMessage() == f"{path}: 6 damaged completions were requested again"
    again = stored(Scripted(lambda messages: 1 / 0), path)
    assert [one.text for one in asked(again, texts)] == list(texts)


# ---- results


def ranking(**settings: Any) -> Ranking:
    return record.reranker(k=2, size=3, **settings).rank(Query("q1", "which?"), record.passages(4))


@pytest.mark.parametrize("spoiled", [flips, wounds])
def test_a_result_comes_back_unchanged_or_is_an_error_that_names_its_line(spoiled: Spoil, tmp_path: Path) -> None:
    path, first = tmp_path / "a.jsonl", ranking()
    line = to_line(ranking_to_json(first)).encode()
    for data in spoiled(line, 2_000):
        path.write_bytes(data)
        found = outcome(lambda: list(read_rankings(path)), FileError)
        assert found.startswith(f"{path}:") if isinstance(found, str) else found == [first]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the fields of a JSON value are; of an array only the first two."""
    yield path
    keys = value if isinstance(value, dict) else range(min(2, len(value))) if isinstance(value, list) else ()
    for key in keys:
        yield from places(value[key], (*path, key))


@pytest.mark.parametrize(
    "settings",
    [{"votes": 3}, {"probabilities": True}, {"fusion": 60}, {"trace": False}],
    ids=str,
)
def test_a_field_of_a_strange_kind_is_an_error_or_can_be_shown_and_written_again(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    trace = settings.pop("trace", True)
    line, path = ranking_to_json(ranking(**settings), trace=trace), tmp_path / "a.jsonl"
    dice, n = random.Random(5), 0
    for place in list(places(line))[1:]:
        for value in dice.sample([*STRANGE, "removed"], 3 if SCALE <= 1 else len(STRANGE)):
            changed = copy.deepcopy(line)
            inner: Any = changed
            for key in place[:-1]:
                inner = inner[key]
            if value == "removed":
                del inner[place[-1]]
            else:
                inner[place[-1]] = value
            path.write_text(json.dumps(changed) + "\n")
            read = outcome(lambda: list(read_rankings(path)), FileError)
            if isinstance(read, str):
                assert read.startswith(f"{path}:1: ")
                continue
            (found,), n = read, n + 1
            show(found, Console(file=io.StringIO()))
            found.log_problems()
            if n % 20 == 0:
                write_page(found, tmp_path / "page.html")
            again = ranking_from_json(parse_object(to_line(ranking_to_json(found, trace=trace)).rstrip("\n")))
            assert (again, again.scores, again.cost) == (found, found.scores, found.cost)
    assert n


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


WRONG = [(f"{name}_tokens", one) for name in ("prompt", "cached", "completion") for one in (-1, 2**31, float("nan"))]
WRONG += [("text", None), ("text", b"<answer>[1]</answer>"), ("finish_reason", ["stop"])]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_what_is_no_completion_of_a_backend_is_an_error_before_it_is_written(field: str, value: Any) -> None:
    backend = Scripted(lambda _: replace(COMPLETION, **{field: value}))
    with pytest.raises(BackendError, match=r"(no text|an impossible number of tokens) in Completion\("):
        Reranker(backend, k=1).rank("q", ["a", "b"])
    assert Reranker(backend, k=1, on_failure="first_stage").rank("q", ["a", "b"]).failure


# ---- training and evaluation


@pytest.mark.parametrize("spoiled", [flips, wounds])
def test_the_log_of_a_training_run_loses_only_what_is_damaged(spoiled: Spoil, tmp_path: Path) -> None:
    lines = [{"step": step, "loss": step / 3, "held_out": {"sets": 3}} for step in (1, 2)]
    whole = "".join(with_checksum(json.dumps(line)) + "\n" for line in lines).encode()
    folder = RunDir(tmp_path)
    for data in spoiled(whole, 1_000):
        folder.log.write_bytes(data)
        assert all(line in lines for line in folder.records())
    (tmp_path / "settings.json").write_text("[" * 99_999)
    with pytest.raises(FileError, match="the file is damaged"):
        _ = folder.settings


@pytest.mark.parametrize("spoiled", [flips, wounds])
def test_the_scores_of_a_run_come_back_unchanged_or_are_an_error(spoiled: Spoil, tmp_path: Path) -> None:
    pytest.importorskip("rankr1_eval")
    from rankr1_eval.compare import read
    from rankr1_eval.scoring import to_json as scores_to_json
    from rankr1_eval.types import Difference, Estimate, Scores, SystemScores

    estimates = {"R@5": Estimate(0.5, 0.25, 0.75, 2)}
    one = SystemScores(
        "none",
        {"R@5": {"a": 1.0, "b": 0.0}},
        estimates,
        {"R@5": Difference(0.0, 0.0, 0.0, 1.0)},
        {"seconds": 0.5},
        ("c",),
    )
    scores = Scores({"none": one}, {"type": {"bridge": {"none": estimates}}})
    path = tmp_path / "scores.json"
    whole = with_checksum(json.dumps(scores_to_json(scores))) + "\n"
    for data in [whole.encode(), *spoiled(whole.encode(), 700)]:
        path.write_bytes(data)
        found = outcome(lambda: read(path).scores, FileError)
        assert str(path) in found if isinstance(found, str) else asdict(found) == asdict(scores)
    line = json.loads(whole)
    for place in list(places(line))[1:]:
        for value in STRANGE:
            changed = copy.deepcopy(line)
            inner: Any = changed
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = value
            path.write_text(json.dumps(changed))
            assert outcome(lambda: read(path).scores, FileError)
