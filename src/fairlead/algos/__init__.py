"""Pure functions on tensors: every formula of the package, without side effects. Nothing here reduces over ranks."""
