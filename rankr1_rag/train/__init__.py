"""Training: examples into sets, sets into prompts and targets, completions into a reward; one `Format` serves all."""
