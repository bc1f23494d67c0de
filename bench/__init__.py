"""Benchmarks: Onsale next to what a user would take instead, in one run on one machine."""
