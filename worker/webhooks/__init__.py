"""The webhooks process: makes messages of the ledger and delivers them. `python -m worker webhooks`."""
