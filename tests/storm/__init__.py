"""The storm: hundreds of clients, every fault we can think of, and a verdict over what everyone was told."""
