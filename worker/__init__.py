"""The consumers: claim an event, apply its commands in batches, complete them."""
