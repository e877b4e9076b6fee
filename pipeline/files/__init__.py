"""Files as such, names, tables, YAML, tensors, HDF5, whole writing; devices, memory, reading ahead. No content."""
