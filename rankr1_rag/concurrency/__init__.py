"""The private event loop in a thread of its own, and how work gets on it, off it and onto the loops of callers."""
