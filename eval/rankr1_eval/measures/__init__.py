"""What a result is worth: answer strings, supports, rankings with judgements, and how sure a mean is."""
