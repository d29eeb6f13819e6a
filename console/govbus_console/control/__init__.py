"""Control: the catalogue and grants of record, and how the bus is brought in line with them."""
