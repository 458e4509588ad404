"""`fairlead doctor`: is this machine ready, and how fast is it."""


def doctor() -> None:
    """Check disk, memory, threads, devices, folders and registry; time a matrix product."""
    from fairlead.runtime.doctor import doctor as examine

    examine()
