"""The product on one machine: real servers from wheels, and the supervisor behind `make up`."""
