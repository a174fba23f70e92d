-- Whether a task's message is in one portion of a queue's list, or of its schedule. Moves nothing.
-- ARGV: list key, task id, first position, how many, '1' for the list's schedule
-- Returns {1 if it is there, 1 if the portion was not the last}.

local key, task_id, from, count = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local portion
if ARGV[5] == '1' then
  portion = redis.call('ZRANGE', SCHEDULE .. key, from, from + count - 1)
else
  portion = redis.call('LRANGE', key, from, from + count - 1)
end
for _, message in ipairs(portion) do
  if string.find(message, task_id, 1, true) and task_id_of(message) == task_id then
    return {1, 0}
  end
end
return {0, #portion == count and 1 or 0}
