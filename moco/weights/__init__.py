"""Read and write weights: all file formats, the encoder folder of a run, the authors' files, other libraries."""
