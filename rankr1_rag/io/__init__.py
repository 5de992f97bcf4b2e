"""Files: JSON lines, TREC runs and qrels, collections, and resumable journals."""
