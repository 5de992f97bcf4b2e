"""Documents of LangChain: subclasses and deep copies of their metadata."""

import copy
import threading

from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_rankr1 import RankR1Rerank

from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.conftest import PASSAGES, QUERY, WANTED
from tests.integrations.with_langchain.parts import ids


class Own(Document):
    shelf: str = ""


def test_a_document_keeps_its_class_and_shares_nothing_with_its_copy(compressor: RankR1Rerank) -> None:
    assert isinstance(compressor, BaseDocumentCompressor)
    pages = {"from": [1, 2], "in": {"book": {"year": 1897}}}
    documents = [
        Own(id=key, page_content=text, metadata={"title": title, "pages": copy.deepcopy(pages)}, shelf=key)
        for key, (title, text) in PASSAGES.items()
    ]
    before = copy.deepcopy(documents)
    chosen = compressor.compress_documents(documents, QUERY)
    assert ids(chosen) == [document.shelf for document in chosen] == WANTED  # type: ignore[attr-defined]
    for document in chosen:
        document.metadata["pages"]["from"].append(3)
        document.metadata["pages"]["in"]["book"].clear()
        document.metadata["title"] = document.page_content = "changed"
    assert documents == before


def test_metadata_that_cannot_be_copied_is_shared(judge: Scripted) -> None:
    lock = threading.Lock()
    documents = [Document(text, metadata={"lock": lock, "deep": [1]}) for _, text in PASSAGES.values()]
    chosen = RankR1Rerank(reranker=Reranker(judge)).compress_documents(documents, QUERY)
    assert all(document.metadata["lock"] is lock for document in chosen)
    assert all(document.metadata["deep"] is not one.metadata["deep"] for document in chosen for one in documents)
