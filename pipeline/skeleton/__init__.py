"""Skeletons as network input, and the encoders that turn them into feature maps."""
