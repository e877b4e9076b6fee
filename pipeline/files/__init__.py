"""Files as such, names, tables, YAML, tensors, HDF5, whole writing; memory, and reading ahead. Knows no content."""
