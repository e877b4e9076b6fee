"""Stage two: encode, train, select, score, evaluate; one file for each verb. Knows no single method."""
