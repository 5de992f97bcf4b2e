"""Shows how one query's ranking came about: on a terminal, and as an HTML page that needs nothing else.

Takes a `Ranking` alone. Must not import models, prompts or files other than the page it writes.
"""

from __future__ import annotations

from rankr1_rag.explain.html import PAGE, page, write_page
from rankr1_rag.explain.story import clean
from rankr1_rag.explain.terminal import cost_table, ranking_table, show

__all__ = ["PAGE", "clean", "cost_table", "page", "ranking_table", "show", "write_page"]
