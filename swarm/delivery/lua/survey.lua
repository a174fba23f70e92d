-- What the reaper looks at: the queues, and every holder with its lease and what it holds. On the
-- way it moves what is due and rings for queues that wait, in case nobody is left who would.
-- ARGV: queues
-- Returns {now in epoch ms, then for each queue: messages waiting, when the next scheduled one is
-- due (epoch ms) or -1, whether its bell is rung, then holder, milliseconds left of its lease or
-- -2 without one or anything to keep, {what names each message it holds}, holder, ...}

local function waiting(queue)
  if not is_waiting(queue) then
    return 0
  end
  ring(queue)
  local length = redis.call('LLEN', queue)
  for priority = 1, 9 do
    length = length + redis.call('LLEN', queue .. SEPARATOR .. priority)
  end
  return length
end

local now = now_ms()
local reply = {now}
for _, queue in ipairs(ARGV) do
  local due = next_due(queue)
  if due and due <= now then
    promote(queue)
    due = next_due(queue)
  end
  reply[#reply + 1] = waiting(queue)
  reply[#reply + 1] = due or -1
  reply[#reply + 1] = redis.call('EXISTS', 'swarm:bell:' .. queue)
end
for _, holder in ipairs(redis.call('HKEYS', 'swarm:holders')) do
  local names = {}
  for _, envelope in ipairs(redis.call('LRANGE', 'swarm:held:' .. holder, 0, -1)) do
    local _, message = open(envelope)
    -- A message without a tag is named by its whole text, as the release script does.
    names[#names + 1] = string.match(message, '"delivery_tag":%s*"([^"]+)"') or message
  end
  reply[#reply + 1] = holder
  reply[#reply + 1] = #names > 0 and redis.call('PTTL', 'swarm:lease:' .. holder) or -2
  reply[#reply + 1] = names
end
return reply
