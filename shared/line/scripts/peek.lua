-- Look at the head of a line without a claim, for RQ's stock worker.
-- ARGV: event_id, batch_commands_max. Gives: has_stray, commands.
return {has_stray(ARGV[1]), peek(ARGV[1], 0, tonumber(ARGV[2]))}
