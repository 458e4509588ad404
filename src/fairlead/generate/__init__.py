"""Tokens to tokens: sampling and the engine."""
