"""How one query's ranking came about, to be read by people: on a terminal and as a page of HTML.

Takes a `Ranking` and nothing else; knows no model, no prompt and no file but the page it writes.
"""

from __future__ import annotations

from rankr1_rag.explain.html import page, write_page
from rankr1_rag.explain.terminal import cost_table, ranking_table, show
from rankr1_rag.explain.text import clean

__all__ = ["clean", "cost_table", "page", "ranking_table", "show", "write_page"]
