"""Golden numbers for the formulas of fine-tuning and RLHF, and a runner that measures any library against them.

The vectors and the runner need Python alone; an adapter brings its own library.
"""
