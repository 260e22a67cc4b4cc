"""Maps of images, search by example, and near-duplicates, all from features of an encoder."""
