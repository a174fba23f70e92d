-- Put a dead letter back at the tail of its queue, with its deaths forgiven.
-- ARGV: delivery tag. Returns 1, or 0 when there is no such letter.

local letter = redis.call('HGET', 'swarm:dead', ARGV[1])
if not letter then
  return 0
end
local entry = cjson.decode(letter)
if entry.task_id ~= '' and redis.call('EXISTS', 'swarm:done:' .. entry.task_id) == 0 then
  redis.call('DEL', 'celery-task-meta-' .. entry.task_id)
end
enqueue(entry.key, entry.message, '')
redis.call('HDEL', 'swarm:dead', ARGV[1])
return 1
