"""The HTTP API: validate, put on the line or read, shape the answer."""
