"""Reading videos, be they files or folders of images: probe, timeline, sampling, decoding. Knows nothing of poses."""
