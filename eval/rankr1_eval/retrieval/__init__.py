"""First stages: a corpus and queries in, for each query its candidates, best first."""
