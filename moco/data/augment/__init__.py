"""Random views of an image: draw the parameters, then apply them on the CPU or the training device."""
