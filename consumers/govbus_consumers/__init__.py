"""Landing: writes deliveries into a department's own store, rows and offsets together."""
