"""Frozen features, judged beside their baselines (Sec. 4.1)."""
