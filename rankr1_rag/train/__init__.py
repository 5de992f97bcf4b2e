"""Training: examples into sets, sets into prompts and targets, what a model writes into a reward.

`examples`, `sets`, `prompts`, `targets` and `reward` need no framework; whatever imports torch says so itself. One
`Format` value serves training and inference. Knows nothing of servers, selections and measures.
"""
