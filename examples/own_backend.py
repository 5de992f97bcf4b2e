"""A backend of your own: any object that completes messages can judge. This one counts shared words."""

import re

from rankr1_rag import Completion, Reranker
from rankr1_rag.backends import Request


class SharedWords:
    """Names the passage that shares most words with the query."""

    model = identity = "shared-words"
    context = None
    can_continue = False

    def count(self, text: str) -> int:
        return len(text.split())

    async def complete(self, request: Request) -> Completion:
        prompt = request.messages[-1]["content"]
        query = set(re.findall(r"\w+", prompt.split('"')[1].lower()))
        passages = re.findall(r"^\[(\d+)\] (.*)$", prompt, re.MULTILINE)
        shared = {label: query & set(re.findall(r"\w+", text.lower())) for label, text in passages}
        best = max(shared, key=lambda label: len(shared[label]))
        reasoning = f"[{best}] shares {', '.join(sorted(shared[best])) or 'nothing'} with the query."
        return Completion(f"<think>{reasoning}</think> <answer>[{best}]</answer>", prompt_tokens=self.count(prompt))

    async def close(self) -> None:
        pass


reranker = Reranker(SharedWords(), k=1)
ranking = reranker.rank(
    "who wrote the novel Dracula?", ["Whitby has an abbey.", "Dracula is a novel that Bram Stoker wrote."]
)
print(ranking.passages[0].text)
print(ranking.explain(1).reasoning)
