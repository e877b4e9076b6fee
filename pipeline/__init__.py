"""posebridge: raw videos to zero-shot action recognition through pose-anchored semantic cues."""
