"""Figures and how they are made; see README.md beside this file."""
