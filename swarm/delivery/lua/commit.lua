-- End a task in one step: out of the holder's list, result, completed mark, successors.
-- ARGV: holder, delivery tag, task id, seconds the completed mark lasts or '0' for none, then
--       for each effect its name and arguments:
--       'store' key value ttl | 'answer' key value | 'delete' key | 'add' key number ttl |
--       'enqueue' list-key message due | 'part' group-key score member ttl list-key message
-- Returns 'committed', 'again' (it was committed, the reply got lost), 'duplicate' (another
-- message of this task was) or 'gone' (the message is no longer held: somebody else has it).

local holder, tag, task_id, done_ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local held = 'swarm:held:' .. holder
local done = 'swarm:done:' .. task_id
local mark = holder .. ' ' .. tag

local envelope
for _, candidate in ipairs(redis.call('LRANGE', held, 0, -1)) do
  if string.find(candidate, tag, 1, true) then
    envelope = candidate
    break
  end
end
local finished = redis.call('GET', done)
if not envelope then
  return finished == mark and 'again' or 'gone'
end
-- Comes last: an error undoes nothing, and what is still held is done again.
local function let_go()
  redis.call('LREM', held, 1, envelope)
  redis.call('DEL', 'swarm:deaths:' .. tag)
end
if finished then
  let_go()
  return 'duplicate'
end

-- A group's last part starts the task that completes its chord.
local function add_part(group, score, member, ttl, key, message)
  local parts, size_key, extra_key = group .. '.j', group .. '.s', group .. '.t'
  redis.call('ZADD', parts, score, member)
  for _, name in ipairs({parts, size_key, extra_key}) do
    redis.call('EXPIRE', name, ttl)
  end
  redis.call('EXPIRE', group, ttl)
  local size = redis.call('GET', size_key)
  local extra = redis.call('GET', extra_key) or 0
  if size and redis.call('ZCARD', parts) == size + extra
      and redis.call('SET', group .. '.c', tag, 'NX', 'EX', ttl) then
    enqueue(key, message, '')
  end
end

local at = 5
while at <= #ARGV do
  local effect = ARGV[at]
  if effect == 'store' then
    redis.call('SET', ARGV[at + 1], ARGV[at + 2], 'EX', ARGV[at + 3])
    at = at + 4
  elseif effect == 'answer' then
    answer(ARGV[at + 1], ARGV[at + 2])
    at = at + 3
  elseif effect == 'delete' then
    redis.call('DEL', ARGV[at + 1])
    at = at + 2
  elseif effect == 'add' then
    redis.call('INCRBY', ARGV[at + 1], ARGV[at + 2])
    redis.call('EXPIRE', ARGV[at + 1], ARGV[at + 3])
    at = at + 4
  elseif effect == 'enqueue' then
    enqueue(ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
    at = at + 4
  else
    add_part(ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6])
    at = at + 7
  end
end
if done_ttl ~= '0' then
  redis.call('SET', done, mark, 'EX', done_ttl)
end
let_go()
return 'committed'
