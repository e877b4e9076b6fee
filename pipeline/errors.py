"""The one exception that a user is meant to read."""


class PosebridgeError(Exception):
    """Something the user can put right. The message is one sentence that names the file or clip and the remedy."""
