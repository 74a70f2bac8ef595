-- shards: one row from each shard that answers (Store.missingShards). Only on a cluster, whose name takes the place of
-- {cluster}; run at every start, after the database is there.
CREATE TABLE IF NOT EXISTS shards AS system.one ENGINE = Distributed('{cluster}', 'system', 'one')
