"""A folder of videos becomes a data set with all that people would write by hand: `posebridge init`."""
