-- expand
-- Items of one owner, from the one that changed last on.
CREATE INDEX store_items_by_change ON store_items (owner, updated_at, namespace, key);
