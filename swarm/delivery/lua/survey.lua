-- What the reaper looks at: the queues, and every holder with its lease and what it holds. On the
-- way it rings for queues that wait, in case nobody is left who would.
-- ARGV: queues
-- Returns {now in epoch ms, requests that producers have told of, then for each queue: messages waiting, when the next one after now is
-- due (epoch ms) or -1, whether its bell is rung, then holder, milliseconds left of its lease or
-- -2 without one or anything to keep, {what names each message it holds}, holder, ...}

local now = now_ms()

-- What is due waits too.
local function waiting(queue)
  local length = 0
  if is_waiting(queue) then
    for _, list in ipairs(lists_of(queue, '')) do
      length = length + redis.call('LLEN', list)
    end
  end
  if is_scheduled(queue) then
    for _, schedule in ipairs(lists_of(queue, SCHEDULE)) do
      length = length + redis.call('ZCOUNT', schedule, '-inf', now)
    end
  end
  if length > 0 then
    ring(queue)
  end
  return length
end

local reply = {now, tonumber(redis.call('GET', 'swarm:usage') or 0)}
for _, queue in ipairs(ARGV) do
  reply[#reply + 1] = waiting(queue)
  reply[#reply + 1] = next_due(queue, '(' .. now) or -1
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
