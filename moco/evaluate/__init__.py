"""Frozen features, judged beside their floors (Sec. 4.1)."""
