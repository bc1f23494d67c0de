"""Digests over the ledger and the event's row, and triggers that keep I1 and I2 whoever writes."""

import sqlalchemy as sa
from alembic import op
from msgspec.structs import replace

from shared.database import audit
from shared.database.statements import ledger_record
from shared.records import EventRecord
from shared.seals import empty_ledger_digest, extended_digest, ledger_line, sealed

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# The planner has no figures about the rows of a statement; without its index a look at the
# holdings of a few users would read every booking.
_KEEP_THE_COUNT = """
CREATE FUNCTION bookings_keep_the_count() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    over record;
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE events SET available_tickets = available_tickets - change.tickets
        FROM (SELECT event_id, sum(ticket_count) FILTER (WHERE status = 'active') AS tickets
              FROM new_rows GROUP BY event_id) AS change
        WHERE events.id = change.event_id AND change.tickets IS NOT NULL;
    ELSIF TG_OP = 'UPDATE' THEN
        UPDATE events SET available_tickets = available_tickets - change.tickets
        FROM (SELECT event_id, coalesce(sum(tickets) FILTER (WHERE status = 'active'), 0) AS tickets
              FROM (SELECT event_id, status, ticket_count AS tickets FROM new_rows
                    UNION ALL SELECT event_id, status, -ticket_count FROM old_rows) AS both_sides
              GROUP BY event_id) AS change
        WHERE events.id = change.event_id;
    ELSE
        UPDATE events SET available_tickets = available_tickets + change.tickets
        FROM (SELECT event_id, sum(ticket_count) AS tickets FROM old_rows WHERE status = 'active'
              GROUP BY event_id) AS change
        WHERE events.id = change.event_id;
        RETURN NULL;
    END IF;
    SELECT touched.user_id, held.tickets, events.max_tickets_per_user INTO over
    FROM (SELECT DISTINCT event_id, user_id FROM new_rows WHERE status = 'active') AS touched
    JOIN events ON events.id = touched.event_id
    CROSS JOIN LATERAL (
        SELECT sum(ticket_count) AS tickets FROM bookings
        WHERE bookings.event_id = touched.event_id AND bookings.user_id = touched.user_id
            AND bookings.status = 'active'
    ) AS held
    WHERE held.tickets > events.max_tickets_per_user
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'user % would hold % of at most % tickets',
            over.user_id, over.tickets, over.max_tickets_per_user
            USING ERRCODE = 'check_violation', CONSTRAINT = 'bookings_user_limit';
    END IF;
    RETURN NULL;
END $$
"""

_GUARD_THE_COUNT = """
CREATE FUNCTION events_guard_the_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.available_tickets <> NEW.total_tickets THEN
            RAISE EXCEPTION 'a new event has all its tickets available'
                USING ERRCODE = 'check_violation', CONSTRAINT = 'events_count';
        END IF;
        RETURN NEW;
    END IF;
    -- Deeper than 1 it is the trigger of the bookings that counts.
    IF pg_trigger_depth() = 1
            AND NEW.available_tickets - OLD.available_tickets <> NEW.total_tickets - OLD.total_tickets THEN
        RAISE EXCEPTION 'available_tickets follows the bookings and total_tickets; it is not set by hand'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'events_count';
    END IF;
    IF NEW.max_tickets_per_user < OLD.max_tickets_per_user AND EXISTS (
        SELECT FROM bookings WHERE event_id = NEW.id AND status = 'active'
        GROUP BY user_id HAVING sum(ticket_count) > NEW.max_tickets_per_user
    ) THEN
        RAISE EXCEPTION 'users hold more than % tickets already', NEW.max_tickets_per_user
            USING ERRCODE = 'check_violation', CONSTRAINT = 'bookings_user_limit';
    END IF;
    RETURN NEW;
END $$
"""

_REFUSE_TRUNCATION = """
CREATE FUNCTION bookings_refuse_truncation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'bookings can''t be truncated: the tickets would not be counted back'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'events_count';
END $$
"""

_TRIGGERS = (
    "CREATE TRIGGER keep_the_count_of_inserted AFTER INSERT ON bookings"
    " REFERENCING NEW TABLE AS new_rows"
    " FOR EACH STATEMENT EXECUTE FUNCTION bookings_keep_the_count()",
    "CREATE TRIGGER keep_the_count_of_updated AFTER UPDATE ON bookings"
    " REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows"
    " FOR EACH STATEMENT EXECUTE FUNCTION bookings_keep_the_count()",
    "CREATE TRIGGER keep_the_count_of_deleted AFTER DELETE ON bookings"
    " REFERENCING OLD TABLE AS old_rows"
    " FOR EACH STATEMENT EXECUTE FUNCTION bookings_keep_the_count()",
    "CREATE TRIGGER refuse_truncation BEFORE TRUNCATE ON bookings"
    " FOR EACH STATEMENT EXECUTE FUNCTION bookings_refuse_truncation()",
    "CREATE TRIGGER guard_the_count_of_inserted BEFORE INSERT ON events"
    " FOR EACH ROW EXECUTE FUNCTION events_guard_the_count()",
    "CREATE TRIGGER guard_the_count_of_updated BEFORE UPDATE ON events FOR EACH ROW"
    " WHEN (OLD.available_tickets <> NEW.available_tickets OR OLD.total_tickets <> NEW.total_tickets"
    " OR OLD.max_tickets_per_user <> NEW.max_tickets_per_user)"
    " EXECUTE FUNCTION events_guard_the_count()",
)


# The columns of this revision; those of the code are of the newest.
_SELECT_EVENT = sa.text(
    "SELECT CAST(id AS text) AS id, name, total_tickets, available_tickets, max_tickets_per_user,"
    " applied_position, fencing_token, created_at, updated_at FROM events WHERE id = :id"
)
_SELECT_LEDGER = sa.text(
    "SELECT CAST(job_id AS text) AS job_id, CAST(event_id AS text) AS event_id, position, kind, payload,"
    " outcome, detail, CAST(booking_id AS text) AS booking_id, accepted_at, applied_at"
    " FROM ledger WHERE event_id = :id ORDER BY position"
)
_STREAMED = {"yield_per": audit.STREAM_ROWS}
_SEAL_EVENT = sa.text("UPDATE events SET ledger_digest = :digest, seal = :seal WHERE id = :id")


def upgrade() -> None:
    op.drop_constraint(op.f("ledger_kind_check"), "ledger")
    op.create_check_constraint(
        op.f("ledger_kind_check"), "ledger", "kind IN ('book', 'cancel', 'repeat', 'unknown')"
    )
    op.add_column("events", sa.Column("ledger_digest", sa.LargeBinary(), nullable=True))
    op.add_column("events", sa.Column("seal", sa.LargeBinary(), nullable=True))
    _seal_what_is_there()
    op.alter_column("events", "ledger_digest", nullable=False)
    op.alter_column("events", "seal", nullable=False)
    for function in (_KEEP_THE_COUNT, _GUARD_THE_COUNT, _REFUSE_TRUNCATION):
        op.execute(function)
    for trigger in _TRIGGERS:
        op.execute(trigger)


def _seal_what_is_there() -> None:
    connection = op.get_bind()
    for event_id in audit.all_event_ids(connection):
        row = connection.execute(_SELECT_EVENT, {"id": event_id}).one_or_none()
        if row is not None:
            event = EventRecord(**row._asdict(), ledger_digest=b"", seal=b"")
            rows = connection.execute(_SELECT_LEDGER, {"id": event_id}, execution_options=_STREAMED)
            lines = (ledger_line(ledger_record(row)) for row in rows)
            event = sealed(
                replace(event, ledger_digest=extended_digest(empty_ledger_digest(event_id), lines))
            )
            written = {"id": event_id, "digest": event.ledger_digest, "seal": event.seal}
            connection.execute(_SEAL_EVENT, written)


def downgrade() -> None:
    op.execute("DROP FUNCTION bookings_keep_the_count() CASCADE")
    op.execute("DROP FUNCTION events_guard_the_count() CASCADE")
    op.execute("DROP FUNCTION bookings_refuse_truncation() CASCADE")
    op.drop_column("events", "seal")
    op.drop_column("events", "ledger_digest")
    op.drop_constraint(op.f("ledger_kind_check"), "ledger")
    op.create_check_constraint(op.f("ledger_kind_check"), "ledger", "kind IN ('book', 'cancel', 'unknown')")
