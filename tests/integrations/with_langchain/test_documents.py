"""Documents of LangChain: subclasses and deep copies of their metadata."""

import copy
import threading

import pytest
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_rankr1 import RankR1Rerank

from tests.integrations.conftest import PASSAGES, QUERY, WANTED
from tests.integrations.with_langchain.parts import ids


class Own(Document):
    shelf: str = ""


def test_a_document_keeps_its_class_and_shares_with_its_copy_only_what_cannot_be_copied(
    compressor: RankR1Rerank,
) -> None:
    assert isinstance(compressor, BaseDocumentCompressor)
    lock, pages = threading.Lock(), {"from": [1, 2], "in": {"book": {"year": 1897}}}
    documents = [
        Own(id=key, page_content=text, metadata={"title": title, "pages": copy.deepcopy(pages)}, shelf=key)
        for key, (title, text) in PASSAGES.items()
    ]
    before = copy.deepcopy(documents)
    for document in documents:
        document.metadata["lock"] = lock
    chosen = compressor.compress_documents(documents, QUERY)
    assert ids(chosen) == [document.shelf for document in chosen] == WANTED  # type: ignore[attr-defined]
    for document in chosen:
        assert document.metadata["lock"] is lock
        document.metadata["pages"]["from"].append(3)
        document.metadata["pages"]["in"]["book"].clear()
        document.metadata["title"] = document.page_content = "changed"
    for document in documents:
        del document.metadata["lock"]
    assert documents == before


@pytest.mark.parametrize(("keep", "scores"), [(True, [0.25, 0.5, None]), (False, [None, "mine", None])])
def test_a_relevance_score_that_is_there_already_is_kept(
    compressor: RankR1Rerank, keep: bool, scores: list[object]
) -> None:
    """The documents come in the order dracula, stoker, dublin."""
    documents = [Document(text, id=key) for key, (_, text) in PASSAGES.items()]
    documents[0].metadata |= {"relevance_score": 0.5, "retrieval_score": "mine"}
    documents[1].metadata |= {"relevance_score": 0.25}
    compressor.keep_retrieval_score = keep
    chosen = compressor.compress_documents(documents, QUERY)
    assert [document.metadata.get("retrieval_score") for document in chosen] == scores
    assert chosen[0].metadata["relevance_score"] == 1.0
