-- The vectors of an item of the long-term store, one after the other: numbers of 4 bytes, little-endian, each vector of
-- length 1. An item that was not embedded has none. They go with the item, whatever deletes it.
ALTER TABLE store_items ADD COLUMN vectors BLOB;

-- How many numbers each vector has: one row, once there has been an index.
CREATE TABLE store_index (
    dims INTEGER NOT NULL
);
