"""Naming the action in a video: by a trained run or by a few examples; and the video with skeletons drawn on it."""
