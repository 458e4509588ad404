"""A recipe becomes stages: what is done and unchanged is skipped, what was cut off goes on."""
