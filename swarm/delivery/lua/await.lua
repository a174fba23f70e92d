-- Give a result, or note where to send it.
-- ARGV: result key, mailbox, seconds the note lasts or '0' for none, requests that this producer has
--       made and nobody was told of
-- Returns the result when the task has ended, else nil.

local key, mailbox, ttl = ARGV[1], ARGV[2], ARGV[3]
count(ARGV[4])
local value = redis.call('GET', key)
if value and is_final(value) then
  return value
end
if ttl ~= '0' then
  local waiting = 'swarm:waiting:' .. key
  redis.call('SADD', waiting, mailbox)
  redis.call('EXPIRE', waiting, ttl)
end
return nil
