-- Webhooks are shared among owners, and hosts of an owner, whatever the port: a port is anybody's to make up. What waits
-- from earlier versions keeps the port in its host.
ALTER TABLE webhook_deliveries ADD COLUMN host TEXT NOT NULL DEFAULT '';
UPDATE webhook_deliveries SET host = substr(origin, instr(origin, '://') + 3);
DROP INDEX webhook_deliveries_due;
ALTER TABLE webhook_deliveries DROP COLUMN origin;
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (owner, host, next_at) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_due_of_owner ON webhook_deliveries (owner, next_at) WHERE status = 'pending';
