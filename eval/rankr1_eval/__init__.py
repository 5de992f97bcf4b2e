"""What reranking does to rankings and to the answers of multi-hop questions.

`rankr1-eval qa` goes through five stages, each of which streams one JSON-lines file keyed by id: load → retrieve →
rerank → read → score. The public names are those of the modules; importing this loads nothing heavy.
"""

__version__ = "0.1.0"
