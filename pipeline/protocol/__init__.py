"""Who is seen and who is not, what may be learnt from whom, and how answers are counted. Knows no particular method."""
