"""skelgap: a controlled benchmark of the skeletonization gap, rendered as real video files."""
