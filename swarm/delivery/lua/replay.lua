-- Put a dead letter back at the tail of its queue, with its deaths forgiven.
-- ARGV: delivery tag. Returns 1, or 0 when there is no such letter.

local letter = redis.call('HGET', 'swarm:dead', ARGV[1])
if not letter then
  return 0
end
local entry = cjson.decode(letter)
redis.call('HDEL', 'swarm:dead', ARGV[1])
if entry.task_id ~= '' then
  redis.call('DEL', 'celery-task-meta-' .. entry.task_id)
end
enqueue(entry.key, entry.message, '')
return 1
