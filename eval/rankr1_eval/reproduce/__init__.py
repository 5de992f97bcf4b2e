"""The tables of the Rank-R1 paper (arXiv 2503.06034) measured again: what it says beside what was found."""
