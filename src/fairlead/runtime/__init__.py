"""The one place for ranks, devices, dtypes, seeds, training checkpoints and metric sinks."""
