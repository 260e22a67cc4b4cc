"""Fine-tune and score an encoder on detection, segmentation, keypoints and classification (tables 2 to 6)."""
