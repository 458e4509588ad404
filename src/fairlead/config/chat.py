"""Talking to a model in the terminal."""

from fairlead.config.common import RuntimeConfig, SamplingConfig
from fairlead.config.section import Section


class ChatConfig(Section):
    """Chat with a model or a finished stage."""

    model: str = "smollm2-135m-instruct"
    """Stage artifact, folder, hub id or starter name to talk to."""
    prompt: str = ""
    """Answer this once and stop; empty opens a dialogue."""
    system: str = ""
    """System message before the dialogue; empty leaves it to the model's chat template."""
    sampling: SamplingConfig = SamplingConfig(temperature=0.7, top_p=0.95)
    """How answers are drawn."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Devices, precision, seed."""
