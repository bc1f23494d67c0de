"""Webhooks: what organisers are told of, when it is tried again, and where it may go."""
