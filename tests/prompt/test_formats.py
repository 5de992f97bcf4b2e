"""The published formats, byte for byte, and what a format of one's own may look like."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from rankr1_rag import Passage
from rankr1_rag.prompt import FORMATS, Format

TWENTY = [Passage(str(n), f"this is passage {n}") for n in range(1, 21)]

DIGESTS = {
    "rank-r1-v0.1": "f50795b2f6ea3ea4",
    "rank-r1-v0.2": "386f916eaea4c51a",
    "setwise-sft-v0.1": "3aed30262dd1d5d0",
    "naming-v1": "11f64b7ec643a0ae",
}


def digest(messages: object) -> str:
    return hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", DIGESTS)
def test_a_format_that_a_model_was_trained_on_never_changes_by_a_byte(name: str) -> None:
    assert digest(FORMATS[name].render("Give me passage 6", TWENTY)) == DIGESTS[name]


def test_rendered_examples_of_the_published_formats_are_equal(shared_prompts: Path) -> None:
    for example in json.loads((shared_prompts / "rendered_examples.json").read_text()):
        passages = [Passage("", text) for text in example["passages"]]
        assert FORMATS[example["format"]].render(example["query"], passages) == example["messages"]


def test_the_published_texts_are_equal(shared_prompts: Path) -> None:
    published = json.loads((shared_prompts / "formats.json").read_text())["formats"]
    for name, texts in published.items():
        format = FORMATS[name]
        assert (format.system, format.user) == (texts["system"], texts["user"])
        assert (format.prefix, format.separator) == (texts["passage_prefix"], texts["passage_separator"])
        assert format.reasoning == texts["reasoning"]


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_a_title_stands_before_the_text_and_a_missing_one_adds_nothing(format: Format) -> None:
    user = format.render("q", [Passage("a", " text ", "Title"), Passage("b", "bare")])[1]["content"]
    head = format.prefix.replace("{num}", "1")
    assert f"{head}Title  text{format.separator}{format.prefix.replace('{num}', '2')}bare" in user


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_slots_in_a_text_are_only_text(format: Format) -> None:
    user = format.render("{docs} {query} {0}", [Passage("a", "{query} {num} {}"), Passage("b", "b")])[1]["content"]
    assert "{docs} {query} {0}" in user
    assert format.prefix.replace("{num}", "1") + "{query} {num} {}" in user


def test_the_naming_format_shows_the_query_twice_and_known_passages_before_the_others() -> None:
    system, user = FORMATS["naming-v1"].render("what\nis it", [Passage("a", "x", "T"), Passage("b", "y")])
    assert system["content"] == "Pick the passage that helps most to answer the query."
    assert user["content"] == "Query: what\nis it\n[1] T x\n[2] y\nQuery: what\nis it"
    known = [Passage("a", "x", "T"), Passage("c", "{docs} [3]")]
    _, user = FORMATS["naming-v1"].render("q", [Passage("b", "y")], known)
    assert user["content"] == "Query: q\nKnown: T x\nKnown: {docs} [3]\n[1] y\nQuery: q"


def test_a_published_format_shows_what_is_known_behind_the_query_and_is_otherwise_untouched() -> None:
    format = FORMATS["rank-r1-v0.1"]
    plain = format.render("why?", TWENTY)
    known = format.render("why?", TWENTY, [Passage("a", "x", "T"), Passage("b", "<think>")])
    asked = "why? (already known: T x) (already known: (think))"
    assert known == [plain[0], {**plain[1], "content": plain[1]["content"].replace("why?", asked)}]


@pytest.mark.parametrize(
    ("user", "shown"),
    [
        ("{query}|{known}|{query}{docs}", "q|<x><y>|qD"),
        ("{known}{docs}{query}", "<x><y>Dq"),
        ("{docs}{query}", "Dq<x><y>"),
        ("{query}{docs}{query}", "q<x><y>Dq<x><y>"),
        ("{query}|{docs}|{query}", "q<x><y>|D|q<x><y>"),
        ("<{docs}>{query}/{query}!", "<D>q<x><y>/q<x><y>!"),
        ("{query} {docs} {num}", "q<x><y> D {num}"),
        ("{docs}\nQuery: {query}!", "D\nQuery: q<x><y>!"),
    ],
)
def test_query_passages_and_known_passages_are_in_the_places_of_the_format(user: str, shown: str) -> None:
    mine = Format("mine", "setwise", "", user, "{num}:", ",", False, "", known="<{line}>")
    known, passages = [Passage("", "x"), Passage("", "y")], [Passage("", "a"), Passage("", "b")]
    assert mine.render("q", passages, known)[0]["content"] == shown.replace("D", "1:a,2:b")
    assert mine.render("q", passages)[0]["content"] == shown.replace("D", "1:a,2:b").replace("<x><y>", "")


def test_more_than_twenty_passages_are_still_numbered() -> None:
    user = FORMATS["rank-r1-v0.1"].render("q", [Passage(str(n), "x") for n in range(30)])[1]["content"]
    assert "\n[30] x\n" in user


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"user": "{query}"}, "{docs} exactly once"),
        ({"user": "{query}{docs}{docs}"}, "{docs} exactly once"),
        ({"user": "{docs}"}, "{query} once or twice"),
        ({"user": "{query}{query}{docs}{query}"}, "{query} once or twice"),
        ({"prefix": "- "}, "num"),
        ({"user": "{query} {docs} {known}"}, "{known} once, before {docs}"),
        ({"user": "{query} {known} {known} {docs}"}, "{known} once, before {docs}"),
        ({"known": "known"}, "{line} exactly once"),
    ],
)
def test_a_format_without_its_slots_is_refused(changes: dict[str, str], problem: str) -> None:
    fields = {"user": "{query} {docs}", "prefix": "[{num}] "} | changes
    with pytest.raises(ValueError, match=re.escape(problem)):
        Format(name="mine", kind="setwise", system="", separator="\n", reasoning=False, bridge="", **fields)  # type: ignore[arg-type]
