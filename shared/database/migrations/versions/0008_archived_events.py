"""When an event was archived: its row stays behind and says so, and lists leave it out."""

import sqlalchemy as sa
from alembic import op

from shared.database import online
from shared.errors import MigrationRefused

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_IS_PRESENT = "archived_at IS NULL"


def upgrade() -> None:
    op.add_column(
        "events", sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True), if_not_exists=True
    )
    online.create_index("events_present_idx", "events", ["id"], where=_IS_PRESENT)
    online.create_index("events_present_organiser_idx", "events", ["organiser_id", "id"], where=_IS_PRESENT)
    online.drop_index("events_organiser_id_id_idx")


def downgrade() -> None:
    """Refused once an event was archived: an earlier version would take it for one with nothing sold."""
    archived = sa.text("SELECT count(*) FROM events WHERE archived_at IS NOT NULL")
    if count := op.get_bind().execute(archived).scalar_one():
        raise MigrationRefused(f"{count} events are archived, which an earlier version does not know")
    online.create_index("events_organiser_id_id_idx", "events", ["organiser_id", "id"])
    online.drop_index("events_present_organiser_idx")
    online.drop_index("events_present_idx")
    op.drop_column("events", "archived_at", if_exists=True)
