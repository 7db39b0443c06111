"""The vocabulary of Headgate: plain types without I/O that every package may import."""
