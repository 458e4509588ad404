"""Writing results so that a crash loses nothing and a damaged file is never trusted."""
