-- expand
-- Threads that are listed, of all owners and of one, from the one that was made last on.
CREATE INDEX threads_by_creation ON threads (created_at, thread_id) WHERE temporary = 0;
CREATE INDEX threads_of_owner_by_creation ON threads (owner, created_at, thread_id) WHERE temporary = 0;
-- Those of one owner that failed, or that wait for a person.
CREATE INDEX threads_unsettled_of_owner ON threads (owner, status, updated_at)
    WHERE status IN ('error', 'interrupted');
-- Deliveries of one owner, and those that have not arrived, of all owners and of one: most have.
CREATE INDEX webhook_deliveries_of_owner ON webhook_deliveries (owner, created_at, run_id);
CREATE INDEX webhook_deliveries_undelivered ON webhook_deliveries (created_at, run_id) WHERE status <> 'delivered';
CREATE INDEX webhook_deliveries_undelivered_of_owner ON webhook_deliveries (owner, created_at, run_id)
    WHERE status <> 'delivered';
