"""Answers about one row: why a department received it or did not, and who did."""
