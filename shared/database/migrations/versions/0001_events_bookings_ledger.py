"""Events, bookings and the ledger."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("total_tickets", sa.Integer(), nullable=False),
        sa.Column("available_tickets", sa.Integer(), nullable=False),
        sa.Column("max_tickets_per_user", sa.Integer(), nullable=False),
        sa.Column("applied_position", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("fencing_token", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("events_pkey")),
        sa.CheckConstraint("total_tickets > 0", name=op.f("events_total_tickets_check")),
        sa.CheckConstraint(
            "available_tickets BETWEEN 0 AND total_tickets", name=op.f("events_available_tickets_check")
        ),
        sa.CheckConstraint("max_tickets_per_user > 0", name=op.f("events_max_tickets_per_user_check")),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "bookings",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("ticket_count", sa.SmallInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("bookings_pkey")),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name=op.f("bookings_event_id_fkey")),
        sa.CheckConstraint("ticket_count > 0", name=op.f("bookings_ticket_count_check")),
        sa.CheckConstraint("status IN ('active', 'cancelled')", name=op.f("bookings_status_check")),
    )
    op.create_index("bookings_event_id_user_id_idx", "bookings", ["event_id", "user_id"])
    op.create_table(
        "ledger",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", JSONB(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("detail", JSONB(), nullable=True),
        sa.Column("booking_id", sa.Uuid(), nullable=True),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name=op.f("ledger_pkey")),
        sa.UniqueConstraint("event_id", "position", name=op.f("ledger_event_id_position_key")),
        sa.CheckConstraint("position > 0", name=op.f("ledger_position_check")),
        sa.CheckConstraint("kind IN ('book', 'cancel', 'unknown')", name=op.f("ledger_kind_check")),
    )


def downgrade() -> None:
    op.drop_table("ledger")
    op.drop_table("bookings")
    op.drop_table("events")
