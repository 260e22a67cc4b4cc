"""TRAINING: Algorithm 1 in `loop.py`, and all that makes it a run that can be stopped anywhere."""
