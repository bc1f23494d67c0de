"""The one place that reads the environment. Every value has a unit in its name, a default and bounds."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import Annotated

from pydantic import AliasChoices, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared import limits
from shared.log import LogFormat, LogLevel


class Durability(StrEnum):
    """How sure a 202 is: Redis's `appendfsync`, or `none` for no append-only file at all."""

    ALWAYS = "always"
    EVERYSEC = "everysec"
    NONE = "none"


class Settings(BaseSettings):
    """What an operator can set. Names in the environment: `ONSALE_` and the field's name."""

    model_config = SettingsConfigDict(env_prefix="ONSALE_", frozen=True)

    database_url: Annotated[
        str,
        Field(
            validation_alias=AliasChoices("database_url", "DATABASE_URL"),
            pattern=r"^postgresql://",
            description="PostgreSQL, as postgresql://user:password@host:port/database",
        ),
    ]
    redis_url: Annotated[
        str,
        Field(
            validation_alias=AliasChoices("redis_url", "REDIS_URL"),
            pattern=r"^(redis|rediss|unix)://",
            description="Redis 7.0 or newer, or Valkey, as redis://host:port/database",
        ),
    ]
    durability: Annotated[
        Durability, Field(description="the durability that /ready asks of Redis before it says ready")
    ] = Durability.ALWAYS
    line_length_max: Annotated[
        int, Field(ge=1, le=10_000_000, description="commands that may wait for one event")
    ] = 1_000_000
    wait_seconds_max: Annotated[
        float, Field(gt=0, le=300, description="the longest that `Prefer: wait` is honoured")
    ] = 30.0
    batch_commands_max: Annotated[
        int, Field(ge=1, le=10_000, description="commands applied in one transaction")
    ] = 1_000
    stretch_batches_max: Annotated[
        int, Field(ge=1, le=10_000, description="batches of one event before others get their turn")
    ] = 20
    stretch_seconds_max: Annotated[
        float, Field(gt=0, le=60, description="time with one event before others get their turn")
    ] = 0.25
    linger_ms: Annotated[
        float, Field(ge=0, le=100, description="how long a busy line may grow before its next small batch")
    ] = 8.0
    lease_seconds: Annotated[
        float,
        Field(
            ge=0.5,
            le=limits.LEASE_SECONDS_MAX,
            description="how long a claim on an event lasts without renewal",
        ),
    ] = 5.0
    idle_wait_seconds: Annotated[
        float, Field(ge=0.1, le=10, description="how long an idle worker blocks before it looks around")
    ] = 1.0
    sweep_seconds: Annotated[
        float, Field(ge=1, le=3600, description="how often one worker looks for stranded or finished lines")
    ] = 10.0
    worker_ttl_seconds: Annotated[
        int, Field(ge=10, le=3600, description="when a silent worker leaves RQ's list of workers")
    ] = 60
    result_ttl_seconds: Annotated[
        int,
        Field(
            ge=1, le=86_400, description="how long Redis keeps a finished job; the ledger keeps it for ever"
        ),
    ] = 90
    failure_ttl_seconds: Annotated[
        int, Field(ge=1, le=31_536_000, description="how long Redis keeps a failed job")
    ] = 86_400
    redis_timeout_seconds: Annotated[
        float, Field(gt=0, le=60, description="the longest that one Redis call may take")
    ] = 2.0
    database_connect_seconds: Annotated[
        int, Field(ge=1, le=60, description="the longest that connecting to PostgreSQL may take")
    ] = 3
    lock_timeout_ms: Annotated[
        int, Field(ge=1, le=60_000, description="the longest wait for the row lock of an event")
    ] = 2_000
    statement_timeout_ms: Annotated[
        int, Field(ge=1, le=300_000, description="the longest that one SQL statement may take")
    ] = 10_000
    transaction_seconds_max: Annotated[
        float,
        Field(gt=0, le=300, description="the longest that PostgreSQL may leave a transaction unanswered"),
    ] = 10.0
    durable_replicas: Annotated[
        int,
        Field(ge=0, le=10, description="replicas of Redis that must have a command on disk before its 202"),
    ] = 0
    log_format: Annotated[
        LogFormat, Field(description="`json`, `text`, or `auto`: text on a terminal, JSON elsewhere")
    ] = LogFormat.AUTO
    log_level: Annotated[
        LogLevel, Field(description="what is logged: this and worse; `debug` has a line per batch")
    ] = LogLevel.INFO
    worker_metrics_port: Annotated[
        int,
        Field(ge=0, le=65_535, description="port of a worker's `/metrics` and `/health`; 0 for none"),
    ] = 0
    api_database_connections_max: Annotated[
        int, Field(ge=1, le=200, description="PostgreSQL connections of one API process")
    ] = 5


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """Read the environment once.

    Raises:
        pydantic.ValidationError: a value is missing or out of bounds; it names the field.
    """
    return Settings()


def explain_settings_error(error: ValidationError) -> str:
    """One line per setting that is missing or wrong, naming the variable to set."""
    lines = []
    for problem in error.errors():
        field = str(problem["loc"][0])
        variable = field.upper() if field in ("database_url", "redis_url") else f"ONSALE_{field.upper()}"
        lines.append(f"{variable.upper()}: {problem['msg']}")
    return "\n".join(lines)
