"""The page: what is on it, what never gets onto it, and how it is written."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rankr1_rag.explain import clean, page, write_page
from rankr1_rag.explain.html import Piece, mentioned, pieces
from rankr1_rag.types import Passage, Ranking

pytestmark = pytest.mark.third_party

Made = Callable[[int], Ranking]

TAGS = """
a article b bdi blockquote body dd details div dl dt em figure footer g h1 h2 h3 h4 head header html li main
meta ol p path section small span style summary svg title ul
"""
ATTRIBUTES = """
aria-hidden aria-label aria-labelledby charset class content d data-position dir height href http-equiv id
lang name open preserveaspectratio role start title viewbox
"""
VOID = {"meta", "path"}


class Page(HTMLParser):
    """What a browser would see: tags, attributes, text, ids; a tag left open or closed twice is an error."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = source
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.style = ""
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text += data

    def values(self, name: str) -> list[str]:
        return [value or "" for key, value in self.attributes if key == name]


def test_no_tag_and_no_attribute_comes_from_a_stranger(hostile: Ranking, ordinary: Ranking) -> None:
    for ranking in (hostile, ordinary, replace(hostile, failure=hostile.query.text)):
        seen = Page(page(ranking))
        assert seen.tags <= set(TAGS.split())
        assert {name for name, _ in seen.attributes} <= set(ATTRIBUTES.split())


def test_hostile_text_is_shown_as_text(hostile: Ranking, hostile_text: str) -> None:
    seen = Page(page(hostile))
    assert clean(hostile_text) in seen.text
    assert clean(hostile_text * 20) in seen.text
    assert "{{ 7 * 7 }}" in seen.text
    assert not set(seen.source) & {"\x00", "\x1b", "\x9b", "\u202e", "\ud800"}


def test_nothing_is_fetched_and_nothing_runs(hostile: Ranking, ordinary: Ranking) -> None:
    for ranking in (hostile, ordinary):
        seen = Page(page(ranking))
        assert all(re.fullmatch(r"#[pc]\d+", link) for link in seen.values("href"))
        assert "url(" not in seen.style
        assert "@import" not in seen.style


def test_the_policy_allows_the_one_style_sheet_by_its_hash_and_nothing_else(ordinary: Ranking) -> None:
    seen = Page(page(ordinary))
    policy = next(value for value in seen.values("content") if value.startswith("default-src"))
    digest = base64.b64encode(hashlib.sha256(seen.style.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_every_candidate_stands_in_the_ranking_once(ordinary: Ranking, failed: Ranking, long: Made) -> None:
    for ranking in (ordinary, failed, long(100)):
        assert tuple(map(int, Page(page(ranking)).values("data-position"))) == ranking.order


def test_duplicate_passages_stay_apart(unasked: Made) -> None:
    ranking = replace(unasked(3), candidates=(Passage("same", "text", "title"),) * 3)
    seen = Page(page(ranking))
    ids = seen.values("id")
    assert len(ids) == len(set(ids))
    assert len(seen.values("data-position")) == 3


def test_every_link_leads_somewhere(ordinary: Ranking, long: Made) -> None:
    for ranking in (ordinary, long(40)):
        seen = Page(page(ranking))
        assert {link[1:] for link in seen.values("href")} <= set(seen.values("id"))
        assert set(seen.values("aria-labelledby")) <= set(seen.values("id"))


def test_every_transcript_is_there(ordinary: Ranking) -> None:
    seen = Page(page(ordinary))
    for comparison in ordinary.trace:
        assert comparison.completion.text in seen.text


def test_the_reasons_stand_beside_the_selected(ordinary: Ranking) -> None:
    cards = page(ordinary).partition('<ol class="cards">')[2].partition('<details class="rest"')[0]
    text = Page(cards.rpartition("</ol>")[0]).text
    assert "Between them, [2] is the better." in text
    assert "Chosen from 2 passages in round 2." in text
    assert "could not be parsed, so the retriever was trusted" in text


def test_unparsed_answers_and_failures_are_marked(ordinary: Ranking, failed: Ranking) -> None:
    source = page(ordinary)
    assert source.count('class="comparison unparsed"') == 1
    assert "unparsed: trusted the retriever" in source
    assert "1 of 4 comparisons gave no answer that could be parsed" in source
    seen = Page(page(failed))
    assert "The backend failed: 503 from <the server>" in seen.text
    assert "First-stage order, unchanged" in seen.text
    assert "svg" not in seen.tags


@pytest.mark.parametrize("number", [0, 1, 2, 30, 31])
def test_any_number_of_candidates_makes_a_page(unasked: Made, number: int) -> None:
    assert len(Page(page(unasked(number))).values("data-position")) == number


def test_five_hundred_candidates_make_a_page_of_reasonable_size(long: Made) -> None:
    ranking = long(500)
    texts = sum(len(passage.text) for passage in ranking.candidates)
    thoughts = sum(len(comparison.completion.text) for comparison in ranking.trace)
    assert len(page(ranking).encode()) < 2 * (texts + thoughts) + 500 * 500


def test_a_long_passage_is_folded_behind_its_beginning(unasked: Made) -> None:
    text = "A sentence. " * 2000
    source = page(replace(unasked(1), candidates=(Passage("id", text),)))
    assert source.count(text) == 1
    assert source.count("A sentence.") < 2100
    assert "The whole passage, 24,000 characters" in source


def test_labels_are_told_apart_from_other_brackets(ordinary: Ranking) -> None:
    comparison = ordinary.trace[1]
    assert pieces("<think>[4], not [7] or [x]</think>", comparison) == [
        Piece("<think>", "tag"),
        Piece("[4]", "label", 9),
        Piece(", not ", "text"),
        Piece("[7]", "text"),
        Piece(" or [x]", "text"),
        Piece("</think>", "tag"),
    ]
    assert mentioned("[4] before [1], and [4] again, never [9]", comparison) == {"[1]": 6, "[4]": 9}


def test_a_page_is_written_whole_or_not_at_all(hostile: Ranking, ordinary: Ranking, tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    write_page(ordinary, target)
    write_page(hostile, str(target))
    assert target.read_bytes().decode("utf-8") == page(hostile)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_page(ordinary, tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "page.html"]
