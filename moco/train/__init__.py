"""Training: Algorithm 1 (`loop.py`), and what makes it a run that can be stopped and resumed anywhere."""
