"""Class descriptions as vectors: sentence encoders and text banks."""
