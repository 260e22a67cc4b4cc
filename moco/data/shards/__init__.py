"""Images in shards: tar files in the layout of WebDataset, read in place by an index, and written by `moco pack`."""
