"""Runs selections against a model: one query at a time, any number at once."""
