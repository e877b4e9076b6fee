"""Files as such: names, tables, YAML, tensors, HDF5, whole writing. Knows nothing of what is in them."""
