"""The product in containers, tried for real: needs a Docker engine and docker-compose."""
