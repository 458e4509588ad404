"""Every option exactly once: frozen models whose field docstrings are the only help text. No torch, no I/O."""
