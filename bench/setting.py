"""Model and device of a comparison, as `compare.py` was asked; the same for both sides, and for what prepares them."""

import os

from fairlead.config.common import ModelConfig, RuntimeConfig
from fairlead.models.sources import Source, resolve

MODEL = os.environ.get("BENCH_MODEL") or ModelConfig().name
DEVICE = os.environ.get("BENCH_DEVICE", "cpu")
RUNTIME = RuntimeConfig(device=DEVICE, dtype="bfloat16")


def source() -> Source:
    """The model."""
    return resolve(MODEL)
