"""Detection, instance segmentation and keypoints: boxes around objects, with what else is found in them."""
