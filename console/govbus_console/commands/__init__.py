"""The commands, one module for each kind; none imports more than Typer until it runs."""
