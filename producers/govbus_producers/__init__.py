"""Capture: finds changes at a department and publishes them, acknowledged."""
