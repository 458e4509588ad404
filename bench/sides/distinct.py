"""The reward of the GRPO works: a rule that costs nothing and gives nearly every response another number."""


def distinct_characters(prompt: str, response: str, answer: str) -> float:  # noqa: ARG001 - as fairlead calls it
    """Different characters of a response, as a share of all."""
    return len(set(response)) / max(len(response), 1)
