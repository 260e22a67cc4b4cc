"""Repeat the papers' ablations: train families of recipes, evaluate them, compare with the published numbers."""
