"""Two hops: the first passage names the subject of the second search.

Needs `pip install ".[demo]"` in a clone, and the weights of the embedded model (see README.md).
"""

import bm25s

from rankr1_rag import Passage, Reranker, demo

corpus = demo.passages()
index = bm25s.BM25()
index.index(bm25s.tokenize([f"{one.title} {one.text}" for one in corpus], show_progress=False), show_progress=False)


def search(text: str) -> list[Passage]:
    """BM25's first five; any function from a text to passages works."""
    (places,), _ = index.retrieve(bm25s.tokenize(text, show_progress=False), k=5, show_progress=False)
    return [corpus[place] for place in places]


query = "Where was the author of the play for which Edvard Grieg composed In the Hall of the Mountain King born?"
with Reranker(k=2, hops=2, retrieve=search) as reranker:
    ranking = reranker.rank(query, search(query))

first = len(ranking) - ranking.retrieved
print("Found by the question:", ", ".join(one.title for one in ranking.candidates[:first]))
print("Found by the question and the selected passage:", ", ".join(one.title for one in ranking.candidates[first:]))
for rank, passage in enumerate(ranking.passages[: ranking.k], 1):
    print(f"{rank}. {passage.title}: {passage.text[:60]}…")
known = [ranking.candidates[position].title for position in ranking.trace[-1].known]
print("Known when the second was selected:", ", ".join(known))
