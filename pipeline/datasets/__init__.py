"""The published data sets as they lie on a lab's disk: one file a family, each turning names into a list of clips."""
