"""The transfer demo: is a pre-trained encoder a better start for detection and segmentation? On copy-paste scenes."""
