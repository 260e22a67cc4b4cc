"""Fine-tune an encoder on detection, segmentation, keypoints and classification, and score it (Tables 2 to 6)."""
