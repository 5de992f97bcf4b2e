"""The page: what is on it, what never gets onto it, and how it is written."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rankr1_rag.errors import FileError
from rankr1_rag.explain import clean, page, write_page
from rankr1_rag.explain.html import marked, mentioned
from rankr1_rag.types import Passage, Ranking
from tests.explain.conftest import HOSTILE
from tests.html_pages import ParsedPage, check_in_browser, check_policy, needs_chromium

Made = Callable[[int], Ranking]

TAGS = """
a article b bdi blockquote body dd details div dl dt em figcaption figure footer g h1 h2 h3 h4 head header html li main
meta ol p path section small span style summary svg title ul
"""
ATTRIBUTES = """
aria-hidden aria-label aria-labelledby charset class content d data-position dir height href http-equiv id
lang name open preserveaspectratio role start stroke-width title viewbox
"""


def test_hostile_text_is_shown_as_text_without_tags_of_its_own(hostile: Ranking, ordinary: Ranking) -> None:
    for ranking in (hostile, ordinary, replace(hostile, failure=hostile.query.text)):
        seen = ParsedPage(page(ranking))
        assert seen.tags <= set(TAGS.split())
        assert {name for name, _ in seen.attributes} <= set(ATTRIBUTES.split())
        assert all(re.fullmatch(r"#[pc]\d+", link) for link in seen.values("href"))
        check_policy(page(ranking))
    seen = ParsedPage(page(hostile))
    assert clean(HOSTILE * 20) in seen.text
    assert "{{ 7 * 7 }}" in seen.text
    assert not set(page(hostile)) & {"\x00", "\x1b", "\x9b", "\u202e", "\ud800"}


def test_every_candidate_transcript_and_link_target_is_there(ordinary: Ranking, failed: Ranking, long: Made) -> None:
    for ranking in (ordinary, failed, long(40)):
        seen = ParsedPage(page(ranking))
        assert tuple(map(int, seen.values("data-position"))) == ranking.order
        assert {link[1:] for link in seen.values("href")} <= set(seen.values("id"))
        assert set(seen.values("aria-labelledby")) <= set(seen.values("id"))
        assert all(comparison.completion.text.strip() in seen.text for comparison in ranking.trace)


def test_duplicate_passages_stay_apart(unasked: Made) -> None:
    seen = ParsedPage(page(replace(unasked(3), candidates=(Passage("same", "text", "title"),) * 3)))
    assert len(seen.values("id")) == len(set(seen.values("id")))
    assert len(seen.values("data-position")) == 3


def test_the_selected_have_their_reasons(ordinary: Ranking) -> None:
    cards = page(ordinary).partition('<ol class="cards">')[2].partition('<details class="rest"')[0]
    text = ParsedPage(cards.rpartition("</ol>")[0]).text
    assert "Between them, [2] is the better." in text
    assert "Chosen from 2 passages in round 2." in text
    assert "could not be parsed, so the retriever was trusted" in text


def test_unparsed_answers_and_failures_are_marked(ordinary: Ranking, failed: Ranking) -> None:
    source = page(ordinary)
    assert source.count('class="comparison unparsed"') == source.count("unparsed: trusted the retriever") == 1
    assert "1 of 4 comparisons gave no answer that could be parsed" in source
    seen = ParsedPage(page(failed))
    assert "The backend failed: 503 from <the server>" in seen.text
    assert "First-stage order, unchanged" in seen.text
    assert "svg" not in seen.tags


@pytest.mark.parametrize("number", [0, 1, 2, 30, 31])
def test_any_number_of_candidates_makes_a_page(unasked: Made, number: int) -> None:
    assert len(ParsedPage(page(unasked(number))).values("data-position")) == number


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


def test_labels_differ_from_other_brackets(ordinary: Ranking) -> None:
    comparison = ordinary.trace[1]
    assert marked("<think>[4], not [7] [x] <b>\x1b&lt;think&gt;</think>", comparison, {9: 'T "9"'}) == (
        '<bdi class="tag">&lt;think&gt;</bdi><b class="label" title="T &#34;9&#34;">[4]</b>, not [7] [x] '
        '&lt;b&gt;␛&amp;lt;think&amp;gt;<bdi class="tag">&lt;/think&gt;</bdi>'
    )
    assert mentioned("[4] before [1], and [4] again, never [9]", comparison) == {"[1]": 6, "[4]": 9}


def test_a_page_is_written_whole_or_not_at_all(hostile: Ranking, ordinary: Ranking, tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    write_page(ordinary, target)
    write_page(hostile, str(target))
    assert target.read_bytes().decode("utf-8") == page(hostile)
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="this is a folder"):
        write_page(ordinary, tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "page.html"]


@needs_chromium
def test_a_browser_accepts_the_page(ordinary: Ranking, hostile: Ranking, tmp_path: Path) -> None:
    for name, ranking in (("ordinary", ordinary), ("hostile", hostile)):
        write_page(ranking, tmp_path / f"{name}.html")
    dom = check_in_browser(tmp_path / "ordinary.html", tmp_path / "hostile.html")
    assert dom.count("data-position=") == len(ordinary)
