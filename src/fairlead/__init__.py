"""fairlead: from a base language model to an aligned, measured chat model."""

__version__ = "0.1.0"
