"""The first stage: a corpus and queries in, for each query its candidates, best first. Knows no support."""
