"""Reading videos: header probe, timeline, uniform sampling, streaming decode in one pass. Knows nothing of poses."""
