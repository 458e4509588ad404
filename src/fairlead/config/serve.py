"""Models behind OpenAI's HTTP interface."""

from pydantic import Field, PositiveInt, model_validator

from fairlead.config.common import RuntimeConfig
from fairlead.config.section import Section

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ServeConfig(Section):
    """Serve models to OpenAI's clients."""

    models: tuple[str, ...] = ("smollm2-135m-instruct",)
    """Runs, stages, folders, hub ids or starter names, as NAME=MODEL for another name; reward models give scores."""
    host: str = "127.0.0.1"
    """Address to listen at; one that others can reach needs a key."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen at; 0 takes a free one."""
    api_key_variable: str = ""
    """Environment variable with the key that clients must send; empty asks for none."""
    allowed_hosts: tuple[str, ...] = ()
    """Names under which clients reach the server besides this machine's own, against DNS rebinding; empty for any."""
    max_running: PositiveInt = 64
    """Requests that are answered at the same time."""
    max_waiting: int = Field(default=1024, ge=0)
    """Requests that may wait for their turn; more are told to come back (429)."""
    store: str = "feedback.db"
    """File of SQLite for chats, labels and accounts, or postgresql://USER@HOST/DATABASE; empty for no pages either."""
    echo: bool = False
    """Serve the model `echo` too, which says the prompt again: for tests of clients."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Devices, precision, seed."""

    @model_validator(mode="after")
    def _closed(self) -> "ServeConfig":
        if self.host not in LOOPBACK and not self.api_key_variable:
            raise ValueError(
                f"host={self.host} can be reached by others, and there is no key; put one into an environment variable "
                "and name it in api_key_variable"
            )
        return self
