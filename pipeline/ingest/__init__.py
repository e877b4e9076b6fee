"""Videos and annotations of a data set become clips: one file for each data set."""
