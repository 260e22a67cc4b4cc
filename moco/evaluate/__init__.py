"""Evaluate frozen features, and compare them with baselines (Sec. 4.1)."""
