"""moco check: bad files, duplicates, near-duplicates, odd sizes."""
