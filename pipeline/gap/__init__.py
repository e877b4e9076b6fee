"""What is known of the clips of a data set, and by what: the skeleton, cues, both."""
