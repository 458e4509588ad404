"""One loop per file; none imports another."""
