"""Prompts to a Rollout: sample, score, shape."""
