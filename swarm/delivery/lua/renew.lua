-- Renew a holder's lease. A script, because a plain SET is refused when Redis is full, and the
-- reaper, which gives back what has no lease, is not.
-- ARGV: holder, seconds the lease lasts

return redis.call('SET', 'swarm:lease:' .. ARGV[1], '1', 'EX', ARGV[2])
