"""Measures the tables of the Rank-R1 paper (https://arxiv.org/abs/2503.06034) again and compares the figures."""
