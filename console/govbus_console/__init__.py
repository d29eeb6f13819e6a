"""The composition root: command line, control store, embedded broker, demo."""
