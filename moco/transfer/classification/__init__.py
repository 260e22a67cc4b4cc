"""Fine-tune an encoder with a linear classifier on its features: `moco transfer classify`."""
