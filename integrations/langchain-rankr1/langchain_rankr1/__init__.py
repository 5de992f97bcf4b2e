"""Rank-R1 as a LangChain document compressor: a reranker that reasons before it picks."""

from langchain_rankr1.compressor import RankR1Rerank

__all__ = ["RankR1Rerank"]
