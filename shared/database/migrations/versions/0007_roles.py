"""The functions of the safety net work for roles that own nothing, and see no tables but the real ones."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_FUNCTIONS = ("bookings_keep_the_count()", "events_guard_the_count()", "bookings_refuse_truncation()")


def upgrade() -> None:
    schema = op.get_bind().execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    for function in _FUNCTIONS:
        # Temporary tables last: otherwise one named `bookings` would be counted instead.
        op.execute(f"ALTER FUNCTION {function} SET search_path = pg_catalog, {schema}, pg_temp")
        op.execute(f"ALTER FUNCTION {function} SECURITY DEFINER")
        op.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")


def downgrade() -> None:
    for function in _FUNCTIONS:
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO PUBLIC")
        op.execute(f"ALTER FUNCTION {function} SECURITY INVOKER")
        op.execute(f"ALTER FUNCTION {function} RESET search_path")
