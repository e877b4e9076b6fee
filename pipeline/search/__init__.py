"""Clips of a whole cache by a sentence or by an example: vectors on the disk, found by FAISS."""
