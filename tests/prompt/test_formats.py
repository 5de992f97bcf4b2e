"""The published formats and what a format of one's own may look like; golden/prompts.json has them byte for byte."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rankr1_rag import Passage
from rankr1_rag.prompt import FORMATS, Format
from rankr1_rag.prompt.authors import AUTHORS


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


@pytest.mark.parametrize("format", [one for one in FORMATS.values() if one not in AUTHORS], ids=lambda one: one.name)
def test_a_title_comes_before_the_text_and_slots_in_a_text_are_only_text(format: Format) -> None:
    passages = [Passage("a", " text ", "Title"), Passage("b", "{query} {num} {}")]
    user = format.render("{docs} {query} {0}", passages)[1]["content"]
    (head, end), (second, last) = ((format.prefix.replace("{num}", n), format.suffix.replace("{num}", n)) for n in "12")
    assert f"{head}Title  text{end}{format.separator}{second}{{query}} {{num}} {{}}{last}" in user
    assert "{docs} {query} {0}" in user


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


@pytest.mark.parametrize(
    ("user", "own", "plain", "shown"),
    [
        ("{query}{known}|{docs}", {}, "q<x>|D", "q\nInstruction: {docs} [1]<x>|D"),
        ("{query}|{docs}", {}, "q<x>|D", "q\nInstruction: {docs} [1]<x>|D"),
        ("{instruction}{query}|{docs}", {"instruction": "as: {line} "}, "q<x>|D", "as: {docs} [1] q<x>|D"),
        (
            "{instruction}, {query}|{docs}",
            {"instruction": "{line}", "no_instruction": "-"},
            "-, q<x>|D",
            "{docs} [1], q<x>|D",
        ),
    ],
)
def test_an_instruction_is_in_its_place_or_a_line_behind_the_query(
    user: str, own: dict[str, str], plain: str, shown: str
) -> None:
    mine = Format("mine", "setwise", "", user, "{num}:", ",", False, "", known="<{line}>", **own)
    passages, known = [Passage("", "a")], [Passage("", "x")]
    for instruction, expected in (("", plain), ("{docs} [1]", shown)):
        assert mine.render("q", passages, known, instruction)[0]["content"] == expected.replace("D", "1:a")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_shows_an_instruction_and_stays_as_it_was_without(name: str) -> None:
    passages = [Passage("", "a")]
    plain, asked = (FORMATS[name].render("which?", passages, (), wish) for wish in ("", "Prefer primary sources."))
    assert "Prefer primary sources." in str(asked)
    assert "Prefer primary sources." not in str(plain)
    assert FORMATS[name].render("which?", passages) == plain


def test_more_than_twenty_passages_are_still_numbered() -> None:
    for name, shown in (("rank-r1-v0.1", "\n[30] x\n"), ("label-v2", "\n[30] x [30]\n")):
        user = FORMATS[name].render("q", [Passage(str(n), "x") for n in range(30)])[1]["content"]
        assert shown in user


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
        ({"instruction": "{line}{line}"}, "instruction must hold {line} exactly once"),
        ({"reply": "Got [{num}]."}, "none with reply"),
        ({"prefix": "", "max_passages": 2}, "num"),
        ({"user": "{docs}", "opening": (("user", "{query}{query}{query}"),)}, "{query} once or twice"),
    ],
)
def test_a_format_without_its_slots_is_refused(changes: dict[str, Any], problem: str) -> None:
    fields = {"user": "{query} {docs}", "prefix": "[{num}] "} | changes
    with pytest.raises(ValueError, match=re.escape(problem)):
        Format(name="mine", kind="setwise", system="", separator="\n", reasoning=False, bridge="", **fields)
