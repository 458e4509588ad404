"""What holds parameters: loading, adapters and heads on one base, attention, the key-value cache."""
