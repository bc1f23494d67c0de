"""The line: everything that is said to Redis, and everything that is known of RQ."""
