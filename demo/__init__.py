"""A stampede to look at: thousands of buyers at once, and every answer checked against the ledger."""
