"""Real PostgreSQL and Valkey as child processes: for `make up`, the tests and the benchmark."""

from local.errors import ServerFailed
from local.ports import free_port
from local.postgres import PostgresServer
from local.server import Server
from local.valkey import ValkeyServer

__all__ = ["PostgresServer", "Server", "ServerFailed", "ValkeyServer", "free_port"]
