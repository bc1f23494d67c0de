"""Terms of sale that can be changed: who owns an event, when its sales open, whether they are closed."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("events", sa.Column("organiser_id", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("sales_open_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "events", sa.Column("sales_closed", sa.Boolean(), nullable=False, server_default=sa.text("false"))
    )
    op.create_index("events_organiser_id_id_idx", "events", ["organiser_id", "id"])
    op.drop_constraint(op.f("ledger_kind_check"), "ledger")
    op.create_check_constraint(
        op.f("ledger_kind_check"), "ledger", "kind IN ('book', 'cancel', 'change', 'repeat', 'unknown')"
    )
    op.create_index(
        "ledger_changes_idx", "ledger", ["event_id", "position"], postgresql_where=sa.text("kind = 'change'")
    )
    for status in ("active", "cancelled"):
        op.create_index(
            f"bookings_{status}_idx",
            "bookings",
            ["event_id", "user_id", "id"],
            postgresql_where=sa.text(f"status = '{status}'"),
        )
    op.drop_index("bookings_event_id_user_id_idx", "bookings")


def downgrade() -> None:
    """Refused by the constraint once an event was changed: an earlier version can't read such a ledger."""
    op.create_index("bookings_event_id_user_id_idx", "bookings", ["event_id", "user_id"])
    op.drop_index("bookings_cancelled_idx", "bookings")
    op.drop_index("bookings_active_idx", "bookings")
    op.drop_index("ledger_changes_idx", "ledger")
    op.drop_constraint(op.f("ledger_kind_check"), "ledger")
    op.create_check_constraint(
        op.f("ledger_kind_check"), "ledger", "kind IN ('book', 'cancel', 'repeat', 'unknown')"
    )
    op.drop_index("events_organiser_id_id_idx", "events")
    op.drop_column("events", "sales_closed")
    op.drop_column("events", "sales_open_at")
    op.drop_column("events", "organiser_id")
