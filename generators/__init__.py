"""Make one pair: functions of inputs and a random generator that return a Pair."""
