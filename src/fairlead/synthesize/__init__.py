"""Prompts and replies made by a model."""
