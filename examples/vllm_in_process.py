"""Many queries on vLLM in this process.

    python examples/vllm_in_process.py [MODEL]

MODEL is a released checkpoint (default: Rank-R1-7B), or any model that vLLM loads. Needs `pip install ".[vllm]"` in a
clone and a GPU, or vLLM's build for CPUs and a small model.
"""

import sys

from rankr1_rag import Cost, Passage, Reranker
from rankr1_rag.backends.vllm import VLLM
from rankr1_rag.backends.wrappers import retried

PASSAGES = [
    Passage("a", "Bram Stoker was born in Clontarf, Dublin, and managed the Lyceum Theatre.", title="Bram Stoker"),
    Passage("b", "Dracula is an 1897 Gothic horror novel by the Irish author Bram Stoker.", title="Dracula"),
    Passage("c", "Whitby is a seaside town in Yorkshire with a ruined abbey.", title="Whitby"),
    Passage("d", "Frankenstein is an 1818 novel by the English author Mary Shelley.", title="Frankenstein"),
]
QUERIES = ["Where was the author of Dracula born?", "Which novel is set in Whitby?", "Who wrote about a monster?"]


def main(model: str) -> None:
    backend = VLLM(model, context=4096)
    with Reranker(retried(backend), k=2, reasoning_tokens=64, force="unparsed", probabilities=True) as reranker:
        total = Cost()
        for index, ranking in reranker.rank_many((query, PASSAGES) for query in QUERIES):
            if isinstance(ranking, Exception):
                raise ranking
            total += ranking.cost
            best = [
                f"{passage.id} {score:.2f}" for passage, score in zip(ranking.passages, ranking.scores, strict=True)
            ]
            print(f"{QUERIES[index]} -> {', '.join(best[: ranking.k])}")
    print(total)


if __name__ == "__main__":  # vLLM spawns processes, and each of them runs this file from its beginning
    main(sys.argv[1] if len(sys.argv) > 1 else "ielabgroup/Rank-R1-7B-v0.1")
