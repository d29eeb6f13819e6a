"""The demonstration: five departments, real input, every row checked against an oracle."""
