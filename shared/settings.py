"""The one place that reads the environment. Every value has a unit in its name, a default and bounds."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared import limits
from shared.log import LogFormat, LogLevel


class Durability(StrEnum):
    """How sure a 202 is: Redis's `appendfsync`, or `none` for no append-only file at all."""

    ALWAYS = "always"
    EVERYSEC = "everysec"
    NONE = "none"


class Authentication(StrEnum):
    """Whether callers have to say who they are."""

    OFF = "off"
    REQUIRED = "required"


class Settings(BaseSettings):
    """What an operator can set. Names in the environment: `ONSALE_` and the field's name."""

    model_config = SettingsConfigDict(env_prefix="ONSALE_", frozen=True, hide_input_in_errors=True)

    database_password_file: Annotated[
        Path | None, Field(description="file with the password for `DATABASE_URL`, which then has none")
    ] = None
    redis_password_file: Annotated[
        Path | None, Field(description="file with the password for `REDIS_URL`, which then has none")
    ] = None
    passwords_directory: Annotated[
        Path | None,
        Field(description="where `python -m worker migrate` finds `<role>/password` of the database's roles"),
    ] = None
    database_url: Annotated[
        str,
        Field(
            repr=False,
            validation_alias=AliasChoices("database_url", "DATABASE_URL"),
            pattern=r"^postgresql://",
            description="PostgreSQL, as postgresql://user:password@host:port/database",
        ),
    ]
    redis_url: Annotated[
        str,
        Field(
            repr=False,
            validation_alias=AliasChoices("redis_url", "REDIS_URL"),
            pattern=r"^(redis|rediss|unix)://",
            description="Redis 7.0 or newer, or Valkey, as redis://host:port/database; rediss:// for TLS",
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
    waiters_max: Annotated[
        int,
        Field(ge=1, le=100_000, description="clients that may wait with `Prefer: wait` at one API process"),
    ] = 10_000
    streams_max: Annotated[
        int, Field(ge=1, le=100_000, description="streams that one API process keeps open")
    ] = 5_000
    stream_position_seconds: Annotated[
        float, Field(ge=0.05, le=5, description="how often a stream is told how far its line has come")
    ] = 1.0
    stream_heartbeat_seconds: Annotated[
        float, Field(ge=0.1, le=30, description="how long a stream is silent before a heartbeat")
    ] = 15.0
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
    ] = 2.0
    lease_seconds: Annotated[
        float,
        Field(
            ge=0.5,
            le=limits.LEASE_SECONDS_MAX,
            description="how long a claim on an event lasts without renewal",
        ),
    ] = 5.0
    idle_wait_seconds: Annotated[
        float,
        Field(ge=0.1, le=10, description="the longest that an idle worker blocks before it looks around"),
    ] = 5.0
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
    drain_seconds: Annotated[
        float,
        Field(ge=0, le=300, description="how long the API serves on after SIGTERM while /ready says no"),
    ] = 0.0
    auth: Annotated[
        Authentication,
        Field(
            description="`required`: callers need an API key or a token; `off`: everybody may do everything"
        ),
    ] = Authentication.OFF
    auth_off_anywhere: Annotated[
        bool, Field(description="let `off` serve other machines than this one; else the API refuses to")
    ] = False
    keys_refresh_seconds: Annotated[
        float, Field(ge=0.1, le=60, description="how soon a key that is made or revoked is known")
    ] = 2.0
    keys_trust_seconds: Annotated[
        float,
        Field(ge=1, le=86_400, description="how long known keys are good while PostgreSQL can't be asked"),
    ] = 900.0
    jwt_secret: Annotated[
        SecretStr | None, Field(description="secret of the identity provider that signs tokens by HS256")
    ] = None
    jwt_jwks_file: Annotated[
        Path | None, Field(description="file with the identity provider's public keys, instead of a secret")
    ] = None
    jwt_audience: Annotated[str, Field(description="`aud` that a customer's token must have")] = "onsale"
    jwt_issuer: Annotated[
        str | None, Field(description="`iss` that a customer's token must have; needed for tokens")
    ] = None
    requests_per_customer: Annotated[
        int, Field(ge=0, le=1_000_000, description="requests of a customer in 60 seconds; 0 for no bound")
    ] = 300
    requests_per_key: Annotated[
        int, Field(ge=0, le=100_000_000, description="requests by an API key in 60 seconds; 0 for no bound")
    ] = 0
    demo: Annotated[
        bool, Field(description="the box office has a button that sends a stampede of made-up buyers")
    ] = False
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
    webhooks_allow_private: Annotated[
        bool,
        Field(description="webhooks may go to private addresses and over http: for intranets and tests"),
    ] = False
    webhooks_attempt_seconds_max: Annotated[
        float, Field(ge=0.1, le=60, description="the longest that one attempt to deliver a message may take")
    ] = 10.0
    webhooks_look_seconds: Annotated[
        float, Field(ge=0.1, le=10, description="how soon it is seen that there is something to tell")
    ] = 1.0
    webhooks_threads: Annotated[
        int, Field(ge=1, le=100, description="targets that one process delivers to at once, slow ones beside")
    ] = 8
    webhooks_log_days: Annotated[
        int, Field(ge=1, le=3650, description="how long delivered and failed messages stay in the log")
    ] = 30

    @field_validator("database_url", "redis_url")
    @classmethod
    def _with_password(cls, url: str, info: ValidationInfo) -> str:
        try:
            _ = urlsplit(url).port
        except ValueError:
            # What the library says repeats a part of the URL, which may be one of the password.
            raise ValueError("not a URL; write special characters of a password as %XX: / is %2F") from None
        name = "database_password_file" if info.field_name == "database_url" else "redis_password_file"
        file: Path | None = info.data.get(name)
        if file is None:
            return url
        try:
            password = file.read_text().strip()
        except OSError as error:
            raise ValueError(f"ONSALE_{name.upper()}: {file}: {error.strerror}") from error
        scheme, _, rest = url.partition("://")
        user, _, host = rest.rpartition("@")
        return f"{scheme}://{user}:{quote(password, safe='')}@{host}"

    @model_validator(mode="after")
    def _tokens_can_be_checked(self) -> Self:
        if self.jwt_secret is not None and self.jwt_jwks_file is not None:
            raise ValueError("set ONSALE_JWT_SECRET or ONSALE_JWT_JWKS_FILE, not both")
        if (self.jwt_secret or self.jwt_jwks_file) and not self.jwt_issuer:
            raise ValueError("set ONSALE_JWT_ISSUER too: tokens of other issuers must be refused")
        secret = self.jwt_secret
        if secret is not None and len(secret.get_secret_value()) < limits.JWT_SECRET_LENGTH_MIN:
            raise ValueError(f"ONSALE_JWT_SECRET needs {limits.JWT_SECRET_LENGTH_MIN} characters at least")
        return self


class SpanSettings(BaseSettings):
    """The variables of OpenTelemetry that decide whether there are spans; its SDK reads all of them itself.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
    """

    model_config = SettingsConfigDict(env_prefix="OTEL_", env_ignore_empty=True, frozen=True)

    sdk_disabled: bool = False
    service_name: str | None = None
    traces_exporter: Literal["otlp", "none"] | None = None
    exporter_otlp_endpoint: str | None = None
    exporter_otlp_traces_endpoint: str | None = None
    exporter_otlp_protocol: Literal["http/protobuf"] | None = None
    exporter_otlp_traces_protocol: Literal["http/protobuf"] | None = None

    @property
    def wanted(self) -> bool:
        """Whether a collector is named, or the usual one asked for."""
        if self.sdk_disabled or self.traces_exporter == "none":
            return False
        named = self.exporter_otlp_endpoint or self.exporter_otlp_traces_endpoint
        return self.traces_exporter == "otlp" or named is not None


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
        if not problem["loc"]:
            lines.append(problem["msg"].removeprefix("Value error, "))
            continue
        field = str(problem["loc"][0])
        prefix = "" if field in ("database_url", "redis_url") else _PREFIXES[error.title]
        lines.append(f"{prefix}{field.upper()}: {problem['msg']}")
    return "\n".join(lines)


_PREFIXES = {Settings.__name__: "ONSALE_", SpanSettings.__name__: "OTEL_"}
