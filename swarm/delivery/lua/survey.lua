-- What the reaper looks at: every holder with its lease and what it holds. On the way it moves
-- what is due and rings for queues that wait, in case nobody is left who would.
-- ARGV: queues
-- Returns {holder, milliseconds left of its lease or -2, {tags}, holder, ...}

for _, queue in ipairs(ARGV) do
  promote(queue)
  if is_waiting(queue) then
    ring(queue)
  end
end
local reply = {}
for _, holder in ipairs(redis.call('HKEYS', 'swarm:holders')) do
  local tags = {}
  for _, envelope in ipairs(redis.call('LRANGE', 'swarm:held:' .. holder, 0, -1)) do
    local _, message = open(envelope)
    tags[#tags + 1] = tag_of(message)
  end
  reply[#reply + 1] = holder
  reply[#reply + 1] = redis.call('PTTL', 'swarm:lease:' .. holder)
  reply[#reply + 1] = tags
end
return reply
