"""The command `posebridge`, also as `python -m posebridge`."""

import sys

from posebridge.ours import require_ours


def main() -> None:
    """Run the command line. One sentence and exit code 1 where another `pipeline` or `stages` is in the way."""
    try:
        require_ours()
    except ImportError as error:
        sys.exit(f"Error: {error}")
    from stages.cli import main as run

    run(prog_name="posebridge")


if __name__ == "__main__":
    main()
