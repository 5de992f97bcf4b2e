"""Queries and passages from files, under every customary name, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from rankr1_rag.errors import FileError
from rankr1_rag.io.collection import as_passage, as_query, read_passages, read_queries
from rankr1_rag.io.trec import read_run
from rankr1_rag.types import Passage, Query

Writer = Callable[..., Path]


@pytest.mark.parametrize(
    "line",
    [
        "7\thow long do fleas live",
        '{"_id": "7", "text": "how long do fleas live"}',
        '{"qid": 7, "query": "how long do fleas live"}',
        '{"id": "7", "text": "how long do fleas live", "answer": null}',
        ' {"query_id": "7", "_id": null, "query": "how long do fleas live"}',
    ],
)
def test_a_query_is_read_under_every_customary_name(file: Writer, line: str) -> None:
    assert read_queries(file(f"\ufeff{line}\r\n\n")) == {"7": "how long do fleas live"}


@pytest.mark.parametrize(
    ("line", "passage"),
    [
        ("d\tA flea.", Passage("d", "A flea.")),
        ('{"docid": "d", "text": "A flea."}', Passage("d", "A flea.")),
        ('{"_id": "d", "title": "Fleas", "text": "A flea."}', Passage("d", "A flea.", "Fleas")),
        ('{"id": 12, "contents": "A flea.", "title": null}', Passage("12", "A flea.")),
        ('{"id": "", "text": ""}', Passage("", "")),
        ('{"docid": "v2.1_0#0", "title": "T", "segment": "A", "url": "u"}', Passage("v2.1_0#0", "A", "T")),
        ('{"pid": "p_1", "docid": "d_1", "passage": "A", "spans": "(0,1)"}', Passage("p_1", "A")),
        ('{"docid": "d", "score": 2, "doc": {"id": "x", "contents": "A"}}', Passage("d", "A")),
        ('{"doc": {"_id": "d", "title": "T", "body": "A"}, "title": null}', Passage("d", "A", "T")),
        ('{"docid": "d", "doc": "{\\"contents\\": \\"A\\"}"}', Passage("d", "A")),
        ('{"docid": "d", "raw": "{\\"id\\": \\"x\\", \\"contents\\": \\"A\\"}"}', Passage("d", "A")),
        ('{"passage_id": 7, "text": "", "contents": "A"}', Passage("7", "A")),
        ('{"id": "", "_id": "d", "title": "", "text": "", "doc": {"title": "T", "text": "A"}}', Passage("d", "A", "T")),
        ('{"docid": "d", "doc": "{A"}', Passage("d", "{A")),
        ('{"id": "d", "data": {"title": "T", "snippet": "A"}}', Passage("d", "A", "T")),
        ('{"id": "d", "text": "\\ud800"}', Passage("d", "\ud800")),
    ],
)
def test_a_passage_is_read_under_every_customary_name(file: Writer, line: str, passage: Passage) -> None:
    assert read_passages(file(line)) == {passage.id: passage}


@pytest.mark.parametrize("content", ["b\tB\nb\tB\na\tA\nc\tC\n", '{"id":"b","text":"B"}\n{"id":"a","text":"A"}\n'])
def test_only_the_wanted_passages_are_kept_once_in_file_order(file: Writer, content: str) -> None:
    found = read_passages(file(content), wanted=["a", "b", "not there"])
    assert list(found.items()) == [("b", Passage("b", "B")), ("a", Passage("a", "A"))]
    assert read_passages(file(content), wanted=()) == {}


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        ("", None, "empty"),
        ("1\ta\n2 b\n", 2, "2 columns, `id<TAB>text`, this one has 1"),
        ("1\ta\tb\n", 1, "this one has 3"),
        ("\ta\n", 1, "the id before the tab is empty"),
        ('{"id": "1", "text": "a"}\n2\tb\n', 2, "not JSON: Extra data at column 3"),
        ('[{"id": "1", "text": "a"}]\n', 1, "the line is an array where an object is needed"),
        (
            '{\n"id": "1"}\n',
            1,
            "not JSON: Expecting property name enclosed in double quotes at column 2; each line must",
        ),
        ('{"id": "1"}\n', 1, '"text" or "'),
        ('{"text": "a"}\n', 1, '"_id"'),
        ('{"id": "1", "text": null}\n', 1, "is missing or null"),
        ('{"id": "1", "text": ["a"]}\n', 1, 'field "text" is an array where a string is needed'),
        ('{"id": true, "text": "a"}\n', 1, 'field "id" is a boolean where a string is needed'),
        ('{"id": {}, "text": "a"}\n', 1, 'field "id" is an object where a string is needed'),
        ('{"id": "1", "text": "a", "x": NaN}\n', 1, "NaN is not JSON"),
        ('{"id": "1", "text": "a", "x": 1e999}\n', 1, "1e999 is too great"),
        ('{"id": "1", "text": "a", "x": ' + "[" * 100_000, 1, "nested too deeply"),
        ('{"id": ' + "1" * 5000 + "}", 1, "Exceeds the limit"),
    ],
)
@pytest.mark.parametrize("read", [read_queries, read_passages])
def test_a_malformed_line_is_an_error_that_names_file_and_line(
    file: Writer, read: Callable[[Path], object], content: str, line: int | None, says: str
) -> None:
    path = file(content)
    with pytest.raises(FileError, match=re.escape(f"{path}:{line}: " if line else f"{path}: ")) as caught:
        read(path)
    assert says in str(caught.value)


@pytest.mark.parametrize(("field", "separator"), [("text", " "), ("title", "\u00a0")])
def test_ids_become_words_and_of_several_contents_the_first_is_kept_with_one_warning(
    file: Writer, caplog: pytest.LogCaptureFixture, field: str, separator: str
) -> None:
    lines = [{"id": id, "text": "a", "title": "a"} for id in ("1", "1", "1", "1", f"of{separator}two")]
    lines[1][field], lines[3][field] = "b", "c"
    path = file("\n".join(map(json.dumps, lines)))
    assert read_passages(path) == {"1": Passage("1", "a", "a"), "of_two": Passage("of_two", "a", "a")}
    assert read_passages(path, wanted=[f"of{separator}two"]).keys() == {"of_two"}
    assert caplog.messages == [f"{path}:2: duplicate passage id '1', and 1 more: the first is kept"]
    assert read_queries(path) == {"1": "a", "of_two": "a"}


def test_a_text_alone_is_a_query_or_a_passage_if_there_is_an_id_for_it() -> None:
    assert (as_query("text", "1"), as_passage("text", "0")) == (Query("1", "text"), Passage("0", "text"))
    with pytest.raises(ValueError, match='"passage_id" is missing or null; the fields are "text"'):
        as_passage("text")
    with pytest.raises(ValueError, match="the passage is a whole number where a string or an object is needed"):
        as_passage(7)


def test_the_queries_and_passages_of_trec_dl_2019_cover_its_run(shared_data: Path) -> None:
    run = read_run(shared_data / "trec-dl-2019" / "run.bm25.top100.trec")
    assert read_queries(shared_data / "trec-dl-2019" / "queries.tsv").keys() == run.keys()
    wanted = {id for ranked in run.values() for id, _ in ranked}
    passages = read_passages(shared_data / "trec-dl-2019" / "passages.jsonl.gz", wanted)
    assert passages.keys() == wanted
    assert passages["5611210"].text.startswith("5. Cancel. A flea can live up to a year")


def test_a_beir_corpus_is_read_with_its_titles(shared_data: Path) -> None:
    passages = read_passages(shared_data / "beir-scifact" / "corpus.jsonl.gz")
    assert len(passages) == 5183
    assert passages["4983"].title.startswith("Microstructural development")
    assert read_queries(shared_data / "beir-scifact" / "queries.jsonl")["0"].startswith("0-dimensional biomaterials")
