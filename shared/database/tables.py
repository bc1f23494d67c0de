"""The tables. A migrated schema equals these definitions; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)

events = Table(
    "events",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("name", Text, nullable=False),
    Column("total_tickets", Integer, nullable=False),
    Column("available_tickets", Integer, nullable=False),
    Column("max_tickets_per_user", Integer, nullable=False),
    Column("applied_position", BigInteger, nullable=False, server_default=text("0")),
    Column("fencing_token", BigInteger, nullable=False, server_default=text("0")),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("ledger_digest", LargeBinary, nullable=False),
    Column("seal", LargeBinary, nullable=False),
    Column("organiser_id", Text),
    Column("sales_open_at", DateTime(timezone=True)),
    Column("sales_closed", Boolean, nullable=False, server_default=text("false")),
    Column("archived_at", DateTime(timezone=True)),
    CheckConstraint("total_tickets > 0", name="total_tickets"),
    CheckConstraint("available_tickets BETWEEN 0 AND total_tickets", name="available_tickets"),
    CheckConstraint("max_tickets_per_user > 0", name="max_tickets_per_user"),
    # The row of a hot event is rewritten with every batch: room in its page keeps the new version
    # there, without a new index entry (a heap-only tuple update).
    postgresql_with={"fillfactor": "50"},
)
# Lists leave archived events out, and read no more than their page.
_is_present = events.c.archived_at.is_(None)
Index("events_present_idx", events.c.id, postgresql_where=_is_present)
Index("events_present_organiser_idx", events.c.organiser_id, events.c.id, postgresql_where=_is_present)

bookings = Table(
    "bookings",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("event_id", Uuid(as_uuid=False), ForeignKey("events.id"), nullable=False),
    Column("user_id", Text, nullable=False),
    Column("ticket_count", SmallInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("ticket_count > 0", name="ticket_count"),
    CheckConstraint("status IN ('active', 'cancelled')", name="status"),
    # By status: what a user holds is then found without reading what they have cancelled.
    Index("bookings_active_idx", "event_id", "user_id", "id", postgresql_where=text("status = 'active'")),
    Index(
        "bookings_cancelled_idx", "event_id", "user_id", "id", postgresql_where=text("status = 'cancelled'")
    ),
)

ledger = Table(
    "ledger",
    metadata,
    Column("job_id", Uuid(as_uuid=False), primary_key=True),
    # No foreign key: a command for an event that is gone still gets its row.
    Column("event_id", Uuid(as_uuid=False), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("payload", JSONB),
    Column("outcome", Text, nullable=False),
    Column("detail", JSONB),
    Column("booking_id", Uuid(as_uuid=False)),
    Column("accepted_at", DateTime(timezone=True), nullable=False),
    Column("applied_at", DateTime(timezone=True), nullable=False),
    Column("trace", Text),
    UniqueConstraint("event_id", "position"),
    CheckConstraint("position > 0", name="position"),
    CheckConstraint("kind IN ('book', 'cancel', 'change', 'repeat', 'unknown')", name="kind"),
    Index("ledger_changes_idx", "event_id", "position", postgresql_where=text("kind = 'change'")),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("role", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("events", ARRAY(Uuid(as_uuid=False))),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("previous_hash", LargeBinary),
    Column("previous_until", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    CheckConstraint("role IN ('organiser', 'seller')", name="role"),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    # No foreign key: checking it would lock the event's row, and the event's consumer would wait.
    Column("event_id", Uuid(as_uuid=False), nullable=False),
    Column("url", Text, nullable=False),
    Column("types", ARRAY(Text), nullable=False),
    Column("secret", Text, nullable=False),
    Column("old_secret", Text),
    Column("old_secret_until", DateTime(timezone=True)),
    # How far in the event's ledger messages have been made, and the tickets that were left there.
    Column("cursor_position", BigInteger, nullable=False),
    Column("cursor_available_tickets", Integer, nullable=False),
    Column("claimed_until", DateTime(timezone=True)),
    Column("resting_until", DateTime(timezone=True)),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("failing_since", DateTime(timezone=True)),
    Column("slow", Boolean, nullable=False, server_default=text("false")),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("disabled_at", DateTime(timezone=True)),
    Column("disabled_reason", Text),
    Column("deleted_at", DateTime(timezone=True)),
    Index("webhooks_event_id_idx", "event_id"),
)

webhook_messages = Table(
    "webhook_messages",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("webhook_id", Uuid(as_uuid=False), ForeignKey("webhooks.id"), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("type", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("status", Text, nullable=False),
    # Attempts ever, and those since it was made or asked for again, which the schedule counts.
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("next_attempt_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint("webhook_id", "position", "type"),
    CheckConstraint("status IN ('pending', 'delivered', 'failed')", name="status"),
    CheckConstraint("(status = 'pending') = (next_attempt_at IS NOT NULL)", name="next_attempt_at"),
    Index(
        "webhook_messages_due_idx",
        "webhook_id",
        "next_attempt_at",
        postgresql_where=text("status = 'pending'"),
    ),
    Index("webhook_messages_created_at_idx", "created_at"),
)

webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    Column(
        "message_id",
        Uuid(as_uuid=False),
        ForeignKey("webhook_messages.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("number", Integer, nullable=False),
    Column("attempted_at", DateTime(timezone=True), nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("status_code", Integer),
    Column("error", Text),
    PrimaryKeyConstraint("message_id", "number"),
)
