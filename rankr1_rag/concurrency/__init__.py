"""The private event loop in a thread of its own, and what lives on it or beside it."""
