"""An OpenAI-style endpoint: where it is, what may be told to it, how patiently it is asked."""

import re
from typing import ClassVar, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from fairlead.config.section import Section

FREE_ENDPOINT_OPTIONS = {"url", "api_key_variable", "timeout_seconds", "num_retries", "num_at_once"}
"""Where a model answers and how patiently it is asked changes how a stage runs, not what it makes."""


class EndpointConfig(Section):
    """A model behind an OpenAI-style endpoint."""

    called: ClassVar[str]
    """What messages call it: the section's name."""

    url: str = ""
    """Address of the endpoint, such as http://localhost:8000/v1; `/chat/completions` is added."""
    model: str = ""
    """Name of the model at that endpoint."""
    api_key_variable: str = ""
    """Environment variable that holds the key; the key itself is written nowhere. Empty sends none."""
    timeout_seconds: PositiveFloat = 120.0
    """How long to wait for one answer."""
    num_retries: int = Field(default=5, ge=0)
    """How often to ask again, after 1, 2, 4 ... seconds, when the endpoint is busy or out of reach."""
    num_at_once: PositiveInt = 8
    """Questions under way at the same time."""

    @model_validator(mode="after")
    def _is_http(self) -> Self:
        if self.url and not re.match(r"https?://[^/\s]", self.url):
            raise ValueError(f"{self.called}.url={self.url} is no address of an endpoint; write http://HOST:PORT/v1")
        return self
