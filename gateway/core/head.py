"""Request and response heads: strict parsing of raw bytes into values."""
