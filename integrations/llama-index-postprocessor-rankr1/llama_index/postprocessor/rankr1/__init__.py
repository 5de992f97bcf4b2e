"""Rank-R1 as a LlamaIndex node postprocessor: a reranker that reasons before it picks."""

from llama_index.postprocessor.rankr1.base import RankR1Rerank

__all__ = ["RankR1Rerank"]
