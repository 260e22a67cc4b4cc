"""Pictures: curves of a run, sheets of images."""
