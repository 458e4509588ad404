"""The `fairlead` command: a short file per verb. Nothing here is imported before its verb is known."""
