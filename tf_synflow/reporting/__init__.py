"""What is left of a network: counts, table, picture."""
