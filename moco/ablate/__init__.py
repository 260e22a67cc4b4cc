"""The papers' ablations: families of recipes, run, judged, and set beside the published numbers."""
