"""DISK -> VIEWS: finding, decoding, drawing and changing images."""
