"""Images in object stores and on web servers, read by fsspec: retries, read-ahead, a cache on the local disk."""
