"""Is an encoder better than its baselines on these images? Paired intervals and a verdict."""
