"""Rank-R1 for retrieval-augmented generation: a reranker that reasons before it picks."""
