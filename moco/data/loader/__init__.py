"""Mini-batches: the order of an epoch, worker threads and processes, caching, bad images."""
