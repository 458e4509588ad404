"""Verdicts on a file before a model learns from it: its text, its tokens, what of them is trained. No torch here."""
