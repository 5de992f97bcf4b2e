"""Rerank three passages with the embedded model; print why the first one won, and the cost."""

from rankr1_rag import Passage, Reranker

passages = [
    Passage("stoker", "Bram Stoker was born in Clontarf, Dublin, and managed the Lyceum.", title="Bram Stoker"),
    Passage("dracula", "Dracula is an 1897 Gothic horror novel by the Irish author Bram Stoker.", title="Dracula"),
    Passage("whitby", "Whitby is a seaside town in Yorkshire with a ruined abbey.", title="Whitby"),
]

with Reranker(k=2) as reranker:
    ranking = reranker.rank("Where was the author of Dracula born?", passages)

for rank, (passage, score) in enumerate(zip(ranking.passages, ranking.scores, strict=True), 1):
    print(f"{rank}. {passage.title} ({score:.2f})")
print(ranking.explain(1))
print(ranking.cost)
