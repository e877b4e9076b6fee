"""Stage one: videos become skeletons and cues in the store. Joins video, pose model and cache."""
