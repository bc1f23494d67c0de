"""Terms of sale that can be changed: who owns an event, when its sales open, whether they are closed."""

import sqlalchemy as sa
from alembic import op

from shared.database import online

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("events", sa.Column("organiser_id", sa.Text(), nullable=True), if_not_exists=True)
    op.add_column(
        "events", sa.Column("sales_open_at", sa.DateTime(timezone=True), nullable=True), if_not_exists=True
    )
    op.add_column(
        "events",
        sa.Column("sales_closed", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        if_not_exists=True,
    )
    online.create_index("events_organiser_id_id_idx", "events", ["organiser_id", "id"])
    online.replace_check(
        "ledger", "ledger_kind_check", "kind IN ('book', 'cancel', 'change', 'repeat', 'unknown')"
    )
    online.create_index("ledger_changes_idx", "ledger", ["event_id", "position"], where="kind = 'change'")
    for status in ("active", "cancelled"):
        online.create_index(
            f"bookings_{status}_idx", "bookings", ["event_id", "user_id", "id"], where=f"status = '{status}'"
        )
    online.drop_index("bookings_event_id_user_id_idx")


def downgrade() -> None:
    """Refused by the constraint once an event was changed: an earlier version can't read such a ledger."""
    online.replace_check("ledger", "ledger_kind_check", "kind IN ('book', 'cancel', 'repeat', 'unknown')")
    online.create_index("bookings_event_id_user_id_idx", "bookings", ["event_id", "user_id"])
    online.drop_index("bookings_cancelled_idx")
    online.drop_index("bookings_active_idx")
    online.drop_index("ledger_changes_idx")
    online.drop_index("events_organiser_id_id_idx")
    op.drop_column("events", "sales_closed", if_exists=True)
    op.drop_column("events", "sales_open_at", if_exists=True)
    op.drop_column("events", "organiser_id", if_exists=True)
