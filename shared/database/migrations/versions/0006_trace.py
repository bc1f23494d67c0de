"""The trace of the request that a command came with, where its client sent one."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A column without a default: its rows are not rewritten."""
    op.add_column("ledger", sa.Column("trace", sa.Text(), nullable=True))


def downgrade() -> None:
    """Loses the traces; the digests of ledgers that have some no longer fit them."""
    op.drop_column("ledger", "trace")
