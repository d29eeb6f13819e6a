"""``python -m govbus_console``: the command line, for processes that start others of their own kind."""

from govbus_console.cli import main

if __name__ == "__main__":
    main()
